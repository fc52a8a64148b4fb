package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// patience is how long anything may take to come up on a busy machine.
const patience = 120 * time.Second

// mostStartsAgain bounds the starts of a component that only ends again.
const mostStartsAgain = 10

// process is one component that was started.
type process struct {
	name, log string
	command   *exec.Cmd
	gone      chan struct{}
}

// start starts the component, again or for the first time, and waits until it serves.
func (p *plane) start(name string) error {
	if p.running[name] != nil {
		return fmt.Errorf("%s runs already", name)
	}
	log := filepath.Join(p.dir, name+".log")
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	command := exec.Command(filepath.Join(p.dir, "bin", name), p.arguments(name)...)
	command.Dir, command.Stdout, command.Stderr = p.dir, file, file
	command.Env = append(os.Environ(), "GOGC=200")
	// A group of its own: Ctrl-C reaches only us. Our end, however it comes, is its end.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		return err
	}
	started := &process{name: name, log: log, command: command, gone: make(chan struct{})}
	p.running[name] = started
	go func() {
		_ = command.Wait()
		close(started.gone)
		p.ended <- started
	}()
	return p.until(started, func() error { return p.serves(name) })
}

// startAgain does what a kubelet does for a static pod of the control plane that ended by itself: a scheduler, for
// one, ends when its cache contradicts a binding whose answer was lost with the API server.
func (p *plane) startAgain(name string) error {
	if p.startedAgain[name]++; p.startedAgain[name] > mostStartsAgain {
		return fmt.Errorf("%s ended by itself %d times and is not started again", name, p.startedAgain[name])
	}
	return p.start(name)
}

// serves is nil once the component does its work; controllers, scheduler and kubelet need no waiting for.
func (p *plane) serves(name string) error {
	switch name {
	case etcd:
		response, err := http.Get(p.etcdURL() + "/health")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return errors.New(response.Status)
		}
	case apiServer:
		client, err := p.client()
		if err != nil {
			return err
		}
		_, err = client.RESTClient().Get().AbsPath("/readyz").DoRaw(context.Background())
		if err != nil {
			return err
		}
		// A chart brings rights of the same names where real nodes are.
		if p.real {
			return nil
		}
		return p.grant(client)
	}
	return nil
}

// nodesReady waits for the stand-in's nodes, their taints gone.
func (p *plane) nodesReady() error {
	client, err := p.client()
	if err != nil || p.nodes == 0 {
		return err
	}
	return p.until(p.running[kubelet], func() error {
		nodes, err := client.CoreV1().Nodes().List(context.Background(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		ready := 0
		for _, node := range nodes.Items {
			for _, condition := range node.Status.Conditions {
				if condition.Type == corev1.NodeReady && condition.Status == "True" && len(node.Spec.Taints) == 0 {
					ready++
				}
			}
		}
		if ready < p.nodes {
			return fmt.Errorf("%d of %d nodes are ready", ready, p.nodes)
		}
		return nil
	})
}

// until asks again and again, as long as the process lives and nobody wants us to end.
func (p *plane) until(process *process, done func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := done()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not serve: %w; its log ends with:\n%s", process.name, err, tail(process.log))
		}
		select {
		case <-process.gone:
			return process.why()
		case sig := <-p.stop:
			// Whoever called us ends for it, too.
			select {
			case p.stop <- sig:
			default:
			}
			return fmt.Errorf("ended by %s", sig)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (p *plane) client() (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", p.kubeconfig("admin"))
	if err != nil {
		return nil, err
	}
	config.Timeout = 5 * time.Second
	return kubernetes.NewForConfig(config)
}

// kill ends the process at once and waits until it is gone: then its port is free again.
func (p *process) kill() {
	_ = p.command.Process.Kill()
	<-p.gone
}

func (p *process) signal(signal syscall.Signal) error { return p.command.Process.Signal(signal) }

// freeze stops the process and waits until every thread has stopped: on a busy machine others go on
// answering until the one that got the signal runs.
func (p *process) freeze() error {
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if p.stopped() {
			return nil
		}
	}
	return fmt.Errorf("%s does not stop", p.name)
}

// stopped asks the kernel, which says so when the last thread has stopped; /proc may be another pid
// namespace's, where our pid is somebody else's.
func (p *process) stopped() bool {
	var found unix.Siginfo
	err := unix.Waitid(unix.P_PID, p.command.Process.Pid, &found, unix.WSTOPPED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err == nil && found.Signo == int32(syscall.SIGCHLD)
}

func (p *process) why() error {
	return fmt.Errorf("%s ended (%s); its log ends with:\n%s", p.name, p.command.ProcessState, tail(p.log))
}

// existing turns "already there" into success.
func existing(err error) error {
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// plane is one control plane: a directory, addresses, and the processes that run.
type plane struct {
	dir, program, address string
	nodes                 int
	// real says that real nodes join: no stand-in keeps nodes, and pods have tokens and reach the API server.
	real    bool
	ports   map[string]int
	running map[string]*process
	// startedAgain counts, for each component, the starts after it ended by itself.
	startedAgain map[string]int
	ended        chan *process
	stop         chan os.Signal
}

// up starts everything, says where it is, and ends everything when it is told to, or when whoever
// started it is gone.
func up() error {
	p := &plane{
		running: map[string]*process{}, startedAgain: map[string]int{}, ended: make(chan *process, 64), stop: make(chan os.Signal, 1),
	}
	control := flag.Bool("control", false, "take commands from standard input (kill, freeze, thaw, start, pid NAME); its end is ours")
	flag.IntVar(&p.nodes, "nodes", 3, "how many nodes the kubelet stand-in keeps")
	flag.StringVar(&p.address, "address", "", "serve real nodes, on this address, and keep no nodes of the stand-in")
	flag.Parse()
	if p.real = p.address != ""; p.real {
		p.nodes = 0
	}
	signal.Notify(p.stop, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	// Whoever reads our answers may be gone: that must not end us before everything else has ended.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	began := time.Now()
	defer p.end()
	if err := p.prepare(); err != nil {
		return err
	}
	for _, name := range components {
		if name == kubelet && p.real {
			continue
		}
		if err := p.start(name); err != nil {
			return err
		}
	}
	if err := p.nodesReady(); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "cluster: %d nodes ready after %.1f s; logs and all are in %s\n",
		p.nodes, time.Since(began).Seconds(), p.dir)
	fmt.Printf("export KUBECONFIG=%s PATH=%s:$PATH\n", p.kubeconfig("admin"), filepath.Join(p.dir, "bin"))
	if *control {
		fmt.Printf("dir %s\netcd %s\nready\n", p.dir, p.etcdURL())
		return p.obey(commands())
	}
	fmt.Fprintln(os.Stderr, "cluster: Ctrl-C ends it")
	return p.obey(nil)
}

// prepare makes the directory with everything that the components read.
func (p *plane) prepare() (err error) {
	if p.program, err = os.Executable(); err != nil {
		return err
	}
	if p.dir, err = os.MkdirTemp("", "plane-"); err != nil {
		return err
	}
	if p.address, p.ports, err = freePorts(p.address, etcd, "etcd-peer", apiServer); err != nil {
		return err
	}
	bin := filepath.Join(p.dir, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		return err
	}
	for _, name := range append([]string{"kubectl"}, components...) {
		if err := os.Symlink(p.program, filepath.Join(bin, name)); err != nil {
			return err
		}
	}
	return p.credentials()
}

// freePorts finds an address of this plane's own, unless one is given, and free ports there: nobody's
// outgoing connection can take such a port while a component is down.
func freePorts(address string, names ...string) (string, map[string]int, error) {
	if address == "" {
		address = fmt.Sprintf("127.%d.%d.%d", 64+rand.N(127), rand.N(256), 1+rand.N(254))
	}
	ports := map[string]int{}
	for _, name := range names {
		listener, err := net.Listen("tcp", address+":0")
		if err != nil {
			return "", nil, err
		}
		defer listener.Close()
		ports[name] = listener.Addr().(*net.TCPAddr).Port
	}
	return address, ports, nil
}

func (p *plane) etcdURL() string { return fmt.Sprintf("http://%s:%d", p.address, p.ports[etcd]) }
func (p *plane) peerURL() string { return fmt.Sprintf("http://%s:%d", p.address, p.ports["etcd-peer"]) }
func (p *plane) serverURL() string {
	return fmt.Sprintf("https://%s:%d", p.address, p.ports[apiServer])
}

// commands passes the lines of standard input on, and closes at its end.
func commands() <-chan string {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(os.Stdin); scanner.Scan(); {
			lines <- scanner.Text()
		}
	}()
	return lines
}

// obey answers each command with one line until there are no more.
func (p *plane) obey(lines <-chan string) error {
	for {
		select {
		case <-p.stop:
			return nil
		case ended := <-p.ended:
			if p.running[ended.name] == ended {
				delete(p.running, ended.name)
				fmt.Fprintln(os.Stderr, "cluster:", ended.why())
				if err := p.startAgain(ended.name); err != nil {
					if lines == nil {
						return err
					}
					fmt.Fprintln(os.Stderr, "cluster:", err)
				}
			}
		case line, more := <-lines:
			if !more {
				return nil
			}
			answer, err := p.command(strings.Fields(line))
			if err != nil {
				answer = "error " + strings.ReplaceAll(err.Error(), "\n", " | ")
			}
			fmt.Println(answer)
		}
	}
}

func (p *plane) command(words []string) (string, error) {
	if len(words) != 2 || !slices.Contains(components, words[1]) {
		return "", fmt.Errorf("unknown command %q", words)
	}
	name := words[1]
	if words[0] == "start" {
		return "ok", p.start(name)
	}
	process := p.running[name]
	if process == nil {
		return "", fmt.Errorf("%s does not run", name)
	}
	switch words[0] {
	case "kill":
		delete(p.running, name)
		process.kill()
		return "ok", nil
	case "freeze":
		return "ok", process.freeze()
	case "thaw":
		return "ok", process.signal(syscall.SIGCONT)
	case "pid":
		return fmt.Sprint(process.command.Process.Pid), nil
	}
	return "", fmt.Errorf("unknown command %q", words[0])
}

// end kills what runs, the frozen too, and leaves nothing behind; with PLANE_KEEP the logs, for whoever
// looks for a fault.
func (p *plane) end() {
	for _, process := range p.running {
		process.kill()
	}
	if p.dir != "" && os.Getenv("PLANE_KEEP") == "" {
		_ = os.RemoveAll(p.dir)
	}
}

// tail is the end of a log, for a message.
func tail(path string) string {
	file, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	_, _ = file.Seek(-2000, io.SeekEnd)
	text, _ := io.ReadAll(file)
	return string(text)
}

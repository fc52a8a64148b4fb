package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
)

// What tests write to have a fault: on a pod `unready: "true"`, on a node `lost: "true"`.
const (
	unready = "stand-in/unready"
	lost    = "stand-in/lost"
)

// standIn does for all pods of all nodes what a kubelet would do, without running anything: an
// address, Running, Ready, and gone when deleted.
type standIn struct {
	client  kubernetes.Interface
	pods    corelisters.PodLister
	nodes   corelisters.NodeLister
	queue   workqueue.TypedRateLimitingInterface[cache.ObjectName]
	mutex   sync.Mutex
	address uint32
}

func kubeletCommand() *cobra.Command {
	var kubeconfig string
	var nodes int
	command := &cobra.Command{Use: kubelet, RunE: func(*cobra.Command, []string) error {
		config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		if err != nil {
			return err
		}
		config.QPS = -1
		return stand(context.Background(), kubernetes.NewForConfigOrDie(config), nodes)
	}}
	command.Flags().StringVar(&kubeconfig, "kubeconfig", "", "how to reach the API server")
	command.Flags().IntVar(&nodes, "nodes", 3, "how many nodes")
	return command
}

func stand(ctx context.Context, client kubernetes.Interface, nodes int) error {
	factory := informers.NewSharedInformerFactory(client, 0)
	pods, nodeInformer := factory.Core().V1().Pods(), factory.Core().V1().Nodes()
	s := &standIn{
		client: client, pods: pods.Lister(), nodes: nodeInformer.Lister(),
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](5*time.Millisecond, time.Second)),
	}
	add := func(object any) {
		if name, err := cache.ObjectToName(object); err == nil {
			s.queue.Add(name)
		}
	}
	_, err := pods.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: add, UpdateFunc: func(_, now any) { add(now) },
	})
	if err != nil {
		return err
	}
	// A node that comes back has pods to look after.
	_, err = nodeInformer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(_, _ any) {
			for _, pod := range s.allPods() {
				add(pod)
			}
		},
	})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	// A stand-in that was started again gives no address twice.
	for _, pod := range s.allPods() {
		if taken, err := netip.ParseAddr(pod.Status.PodIP); err == nil {
			s.address = max(s.address, number(taken))
		}
	}
	for i := range nodes {
		go s.node(ctx, fmt.Sprintf("node-%d", i))
	}
	for range 16 {
		go s.work(ctx)
	}
	<-ctx.Done()
	return nil
}

func (s *standIn) work(ctx context.Context) {
	for {
		name, ended := s.queue.Get()
		if ended {
			return
		}
		err := s.tend(ctx, name)
		if err != nil && !apierrors.IsNotFound(err) {
			s.queue.AddRateLimited(name)
		} else {
			s.queue.Forget(name)
		}
		s.queue.Done(name)
	}
}

// tend brings one pod to where a kubelet would have it.
func (s *standIn) tend(ctx context.Context, name cache.ObjectName) error {
	pod, err := s.pods.Pods(name.Namespace).Get(name.Name)
	if err != nil || !s.looksAfter(pod.Spec.NodeName) {
		return err
	}
	pods := s.client.CoreV1().Pods(name.Namespace)
	if pod.DeletionTimestamp != nil {
		if grace := pod.DeletionGracePeriodSeconds; grace != nil && *grace == 0 {
			return nil
		}
		return pods.Delete(ctx, name.Name, metav1.DeleteOptions{
			GracePeriodSeconds: new(int64), Preconditions: &metav1.Preconditions{UID: &pod.UID},
		})
	}
	status, differs := s.statusOf(pod)
	if !differs {
		return nil
	}
	patch, err := json.Marshal(map[string]any{
		// The patch is for this pod, not for a namesake.
		"metadata": map[string]any{"uid": pod.UID}, "status": status,
	})
	if err != nil {
		return err
	}
	_, err = pods.Patch(ctx, name.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// looksAfter tells whether pods of that node are ours: it exists and is not lost.
func (s *standIn) looksAfter(name string) bool {
	if name == "" {
		return false
	}
	node, err := s.nodes.Get(name)
	return err == nil && node.Annotations[lost] != "true"
}

// statusOf is what the pod's status should be, and whether it is not.
func (s *standIn) statusOf(pod *corev1.Pod) (corev1.PodStatus, bool) {
	ready := corev1.ConditionTrue
	if pod.Annotations[unready] == "true" {
		ready = corev1.ConditionFalse
	}
	now := pod.Status
	if now.Phase == corev1.PodSucceeded || now.Phase == corev1.PodFailed {
		return now, false
	}
	if now.Phase == corev1.PodRunning && now.PodIP != "" && condition(now.Conditions, corev1.PodReady) == ready {
		return now, false
	}
	if now.PodIP == "" {
		now.PodIP = s.nextAddress()
	}
	start := now.StartTime
	if start == nil {
		start = &metav1.Time{Time: time.Now()}
	}
	status := corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: now.PodIP, PodIPs: []corev1.PodIP{{IP: now.PodIP}},
		HostIP: "192.0.2.1", StartTime: start,
	}
	for of, value := range map[corev1.PodConditionType]corev1.ConditionStatus{
		corev1.PodInitialized: corev1.ConditionTrue, corev1.ContainersReady: ready, corev1.PodReady: ready,
	} {
		if condition(now.Conditions, of) != value {
			status.Conditions = append(status.Conditions,
				corev1.PodCondition{Type: of, Status: value, LastTransitionTime: metav1.Now()})
		}
	}
	for _, container := range pod.Spec.Containers {
		started := true
		status.ContainerStatuses = append(status.ContainerStatuses, corev1.ContainerStatus{
			Name: container.Name, Image: container.Image, Ready: ready == corev1.ConditionTrue, Started: &started,
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: *start}},
		})
	}
	return status, true
}

func condition(all []corev1.PodCondition, of corev1.PodConditionType) corev1.ConditionStatus {
	for _, condition := range all {
		if condition.Type == of {
			return condition.Status
		}
	}
	return corev1.ConditionUnknown
}

func (s *standIn) allPods() []*corev1.Pod {
	pods, err := s.pods.List(labels.Everything())
	if err != nil {
		return nil
	}
	return pods
}

// The addresses are those of 10.64.0.0/10; EndpointSlices refuse loopback.
var firstAddress = number(netip.MustParseAddr("10.64.0.1"))

func (s *standIn) nextAddress() string {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.address = max(s.address+1, firstAddress)
	var bytes [4]byte
	binary.BigEndian.PutUint32(bytes[:], s.address)
	return netip.AddrFrom4(bytes).String()
}

func number(address netip.Addr) uint32 {
	bytes := address.As4()
	return binary.BigEndian.Uint32(bytes[:])
}

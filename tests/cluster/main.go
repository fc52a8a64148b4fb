// One program, many names: it looks at the name that it was called by and is that component of a
// Kubernetes control plane; as `cluster` it starts them all, each as a process of its own, so that each
// can be killed, frozen and started again alone. It links once.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/version"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	agent "k8s.io/kubernetes/cmd/kubelet/app"
)

// The kernel ends our children with the thread that started them: that must be the one that lives
// as long as the process.
func init() { runtime.LockOSThread() }

// What a real node runs (scripts/node starts it), beside the plane.
const (
	realKubelet = "real-kubelet"
	kubeProxy   = "kube-proxy"
)

// Names that are no components.
var tools = []string{"kubectl", fullCache, realKubelet, kubeProxy}

func main() {
	name := filepath.Base(os.Args[0])
	if len(os.Args) > 1 && (slices.Contains(components, os.Args[1]) || slices.Contains(tools, os.Args[1])) {
		name, os.Args = os.Args[1], os.Args[1:]
	}
	switch name {
	case etcd:
		etcdmain.Main(os.Args)
	case apiServer:
		os.Exit(run(apiserver.NewAPIServerCommand()))
	case controllerManager:
		os.Exit(run(controllers.NewControllerManagerCommand()))
	case kubeScheduler:
		os.Exit(run(scheduler.NewSchedulerCommand()))
	case kubelet:
		os.Exit(run(kubeletCommand()))
	case realKubelet:
		os.Exit(run(agent.NewKubeletCommand(context.Background())))
	case kubeProxy:
		os.Exit(run(proxy.NewProxyCommand()))
	case fullCache:
		os.Exit(run(fullCacheCommand()))
	case "kubectl":
		if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
			util.CheckErr(err)
		}
	default:
		if err := up(); err != nil {
			fmt.Fprintln(os.Stderr, "cluster:", err)
			os.Exit(1)
		}
	}
}

func run(command *cobra.Command) int { return cli.Run(command) }

package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// fullCache is a yardstick, not a component: an informer that keeps all pods of a namespace whole, as
// most controllers do. It says when it has them and stays until its input ends.
const fullCache = "full-cache"

func fullCacheCommand() *cobra.Command {
	var kubeconfig, namespace string
	command := &cobra.Command{Use: fullCache, RunE: func(*cobra.Command, []string) error {
		config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		if err != nil {
			return err
		}
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace))
		pods := factory.Core().V1().Pods().Informer()
		factory.Start(ctx.Done())
		factory.WaitForCacheSync(ctx.Done())
		fmt.Println("synced", len(pods.GetStore().ListKeys()))
		_, err = io.Copy(io.Discard, os.Stdin)
		return err
	}}
	command.Flags().StringVar(&kubeconfig, "kubeconfig", "", "how to reach the API server")
	command.Flags().StringVar(&namespace, "namespace", "", "whose pods; all if empty")
	return command
}

package main

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
)

//go:embed rbac.yaml
var rbac []byte

// grant gives the project's own user its rights.
func (p *plane) grant(client *kubernetes.Clientset) error {
	ctx, options := context.Background(), metav1.CreateOptions{}
	for _, document := range bytes.Split(rbac, []byte("\n---\n")) {
		object, _, err := scheme.Codecs.UniversalDeserializer().Decode(document, nil, nil)
		if err != nil {
			return err
		}
		switch object := object.(type) {
		case *rbacv1.ClusterRole:
			_, err = client.RbacV1().ClusterRoles().Create(ctx, object, options)
		case *rbacv1.ClusterRoleBinding:
			_, err = client.RbacV1().ClusterRoleBindings().Create(ctx, object, options)
		default:
			err = fmt.Errorf("rbac.yaml: unexpected %T", object)
		}
		if err := existing(err); err != nil {
			return err
		}
	}
	return nil
}

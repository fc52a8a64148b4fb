package main

import (
	"fmt"
	"path/filepath"
)

const (
	etcd              = "etcd"
	apiServer         = "kube-apiserver"
	controllerManager = "kube-controller-manager"
	kubeScheduler     = "kube-scheduler"
	kubelet           = "kubelet"
)

// In the order of their start.
var components = []string{etcd, apiServer, controllerManager, kubeScheduler, kubelet}

// Only what the tests need: the fewer loops, the less a small machine is busy with.
const loops = "deployment-controller,replicaset-controller,statefulset-controller,endpointslice-controller," +
	"endpoints-controller,garbage-collector-controller,namespace-controller,disruption-controller," +
	"serviceaccount-controller,horizontal-pod-autoscaler-controller,pod-garbage-collector-controller," +
	"node-lifecycle-controller"

// arguments of one component.
func (p *plane) arguments(name string) []string {
	file := func(name string) string { return filepath.Join(p.dir, name) }
	switch name {
	case etcd:
		return []string{
			"--name=plane", "--data-dir=" + file("etcd"), "--unsafe-no-fsync", "--log-level=warn",
			"--listen-client-urls=" + p.etcdURL(), "--advertise-client-urls=" + p.etcdURL(),
			"--listen-peer-urls=" + p.peerURL(), "--initial-advertise-peer-urls=" + p.peerURL(),
			"--initial-cluster=plane=" + p.peerURL(), "--quota-backend-bytes=8589934592",
		}
	case apiServer:
		return append(p.reachable(), []string{
			"--etcd-servers=" + p.etcdURL(),
			// Every revision stays, in a form that a checker without our code can read.
			"--etcd-compaction-interval=0", "--storage-media-type=application/json",
			"--bind-address=" + p.address, fmt.Sprintf("--secure-port=%d", p.ports[apiServer]),
			"--tls-cert-file=" + file("server.pem"), "--tls-private-key-file=" + file("server.key"),
			"--client-ca-file=" + file("ca.pem"), "--token-auth-file=" + file("tokens.csv"),
			"--service-account-issuer=https://plane.test", "--service-account-key-file=" + file("accounts.key"),
			"--service-account-signing-key-file=" + file("accounts.key"),
			"--service-cluster-ip-range=10.96.0.0/12",
			"--audit-policy-file=" + file("audit.yaml"), "--audit-log-path=" + file("audit.log"),
			"--audit-log-maxsize=100000",
			// A test's burst is no attack.
			"--enable-priority-and-fairness=false", "--max-requests-inflight=4000",
			"--max-mutating-requests-inflight=2000",
		}...)
	case controllerManager:
		return []string{
			"--kubeconfig=" + p.kubeconfig(name), "--leader-elect=false", "--secure-port=0",
			"--controllers=" + p.loops(), "--use-service-account-credentials=true",
			"--service-account-private-key-file=" + file("accounts.key"),
			"--root-ca-file=" + file("ca.pem"),
			"--kube-api-qps=2000", "--kube-api-burst=4000", "--concurrent-replicaset-syncs=10",
			// A lost node is seen in seconds; a busy machine's pause is not taken for one.
			"--node-monitor-period=1s", "--node-monitor-grace-period=16s",
		}
	case kubeScheduler:
		return []string{
			"--kubeconfig=" + p.kubeconfig(name), "--leader-elect=false", "--secure-port=0",
			"--kube-api-qps=2000", "--kube-api-burst=4000",
		}
	case kubelet:
		return []string{"--kubeconfig=" + p.kubeconfig(name), fmt.Sprintf("--nodes=%d", p.nodes)}
	}
	return nil
}

// loops that run: pods on real nodes also need the API server's certificate in their namespace, and Helm's hooks are Jobs.
func (p *plane) loops() string {
	if p.real {
		return loops + ",job-controller,root-ca-certificate-publisher-controller"
	}
	return loops
}

// reachable has the API server's arguments that say who reaches it from where.
func (p *plane) reachable() []string {
	if p.real {
		return []string{
			"--advertise-address=" + p.address, "--kubelet-preferred-address-types=InternalIP",
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		}
	}
	return []string{
		// A loopback address may not be announced, and nobody asks for the announcement there.
		"--advertise-address=192.0.2.1", "--endpoint-reconciler-type=none",
		// The stand-in's pods have no files: no tokens for them.
		"--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount",
	}
}

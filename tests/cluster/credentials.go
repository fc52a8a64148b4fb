package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	_ "embed"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

//go:embed audit.yaml
var auditPolicy []byte

// realNode is the name of the real node; a second one has "-2" behind it.
const realNode = "node"

// Who may come, by the name of the kubeconfig.
var users = []struct{ file, name, group string }{
	{"admin", "admin", "system:masters"},
	{"kubervisor", "kubervisor", ""},
	// No rights but those that a test gives it.
	{"nobody", "nobody", ""},
	{controllerManager, "system:kube-controller-manager", ""},
	{kubeScheduler, "system:kube-scheduler", ""},
	{kubelet, "stand-in", "system:masters"},
	{realKubelet, "system:node:" + realNode, "system:nodes"},
	{realKubelet + "-2", "system:node:" + realNode + "-2", "system:nodes"},
	{kubeProxy, "system:kube-proxy", ""},
}

func (p *plane) kubeconfig(user string) string { return filepath.Join(p.dir, user+".kubeconfig") }

// credentials writes a CA, the API server's certificate, the key of service accounts, the users'
// tokens and a kubeconfig for each.
func (p *plane) credentials() error {
	files := map[string][]byte{"audit.yaml": auditPolicy}
	ca, err := certificates(net.ParseIP(p.address), files)
	if err != nil {
		return err
	}
	var tokens []byte
	for _, user := range users {
		secret := make([]byte, 16)
		if _, err := rand.Read(secret); err != nil {
			return err
		}
		token := hex.EncodeToString(secret)
		tokens = fmt.Appendf(tokens, "%s,%s,%s,%s\n", token, user.name, user.name, user.group)
		config := clientcmdapi.NewConfig()
		config.Clusters["plane"] = &clientcmdapi.Cluster{Server: p.serverURL(), CertificateAuthorityData: ca}
		config.AuthInfos[user.name] = &clientcmdapi.AuthInfo{Token: token}
		config.Contexts["plane"] = &clientcmdapi.Context{Cluster: "plane", AuthInfo: user.name}
		config.CurrentContext = "plane"
		if files[user.file+".kubeconfig"], err = clientcmd.Write(*config); err != nil {
			return err
		}
	}
	files["tokens.csv"] = tokens
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(p.dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// certificates puts the PEM files of the plane into files and returns the CA's.
func certificates(address net.IP, files map[string][]byte) ([]byte, error) {
	caKey, err := key("ca.key", files)
	if err != nil {
		return nil, err
	}
	if _, err := key("accounts.key", files); err != nil {
		return nil, err
	}
	serverKey, err := key("server.key", files)
	if err != nil {
		return nil, err
	}
	from, to := time.Now().Add(-time.Hour), time.Now().Add(30*24*time.Hour)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "plane"}, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	server := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: apiServer}, NotBefore: from, NotAfter: to,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		// The second one is the Service `kubernetes`: the first address of the Services' range.
		IPAddresses: []net.IP{address, net.IPv4(10, 96, 0, 1)},
	}
	for name, certificate := range map[string]*x509.Certificate{"ca.pem": ca, "server.pem": server} {
		public := &caKey.PublicKey
		if certificate == server {
			public = &serverKey.PublicKey
		}
		der, err := x509.CreateCertificate(rand.Reader, certificate, ca, public, caKey)
		if err != nil {
			return nil, err
		}
		files[name] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	return files["ca.pem"], nil
}

func key(name string, files map[string][]byte) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	files[name] = pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	return key, err
}

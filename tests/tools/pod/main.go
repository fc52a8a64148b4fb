// The one program in the test image of the real node. `pod pause` keeps a sandbox; `pod serve` is an application that
// answers with its pod's name, fails on request, counts its answers, and sheds its connections when it is notified.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// lameDuck is how long the application serves after SIGTERM: kube-proxy stops sending some 100 ms after the pod is
// marked as terminating.
const lameDuck = 2 * time.Second

func main() {
	if len(os.Args) == 2 && os.Args[1] == "serve" {
		serve()
		return
	}
	// A sandbox: ends on request, and reaps whatever the kernel leaves to it.
	signal.Ignore(syscall.SIGCHLD)
	<-ended()
}

func ended() <-chan os.Signal {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	return signals
}

func serve() {
	name, _ := os.Hostname()
	var failing atomic.Bool
	var answers, errors atomic.Uint64
	server := &http.Server{Addr: ":8080"}
	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		if failing.Load() {
			errors.Add(1)
			w.WriteHeader(http.StatusInternalServerError)
		} else {
			answers.Add(1)
		}
		fmt.Fprintln(w, name)
	})
	http.HandleFunc("GET /healthy", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("POST /fail", func(http.ResponseWriter, *http.Request) { failing.Store(true) })
	http.HandleFunc("POST /recover", func(http.ResponseWriter, *http.Request) { failing.Store(false) })
	http.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "# TYPE http_requests_total counter\nhttp_requests_total{code=\"200\"} %d\n", answers.Load())
		fmt.Fprintf(w, "http_requests_total{code=\"500\"} %d\n", errors.Load())
	})
	http.HandleFunc("POST /notify", func(w http.ResponseWriter, r *http.Request) {
		var news struct{ Traffic string }
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 65536)).Decode(&news); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		// Ends the idle connections now and the others with their next answer.
		server.SetKeepAlivesEnabled(news.Traffic == "yes")
	})
	go func() {
		<-ended()
		time.Sleep(lameDuck)
		_ = server.Shutdown(context.Background())
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		fmt.Fprintln(os.Stderr, "pod:", err)
		os.Exit(1)
	}
}

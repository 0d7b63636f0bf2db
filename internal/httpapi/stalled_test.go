package httpapi

import (
	"context"
	"io"
	"iter"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// endless is an Instances with a log without end.
type endless struct {
	Instances
	begun chan struct{} // closed when the first line comes
}

func (endless) Get(string) (instance.View, error) { return instance.View{}, nil }

func (e endless) Lines(context.Context, string, instance.LogQuery) (iter.Seq2[instance.LogLine, error], error) {
	line := instance.LogLine{Stream: frame.Stdout, Source: instance.FromProgram, Text: make([]byte, 64<<10)}
	return func(yield func(instance.LogLine, error) bool) {
		close(e.begun)
		for yield(line, nil) {
		}
	}, nil
}

// TestDaemonEndsWithStalledRequests has clients that follow a log without reading it, and
// that never end what they send: neither keeps the daemon.
func TestDaemonEndsWithStalledRequests(t *testing.T) {
	logs := endless{begun: make(chan struct{})}
	_, s, socket := serveConfig(t, &stubRunner{}, Config{Instances: logs, Limits: Limits{Farewell: 50 * time.Millisecond}}, os.Getuid())
	for _, request := range []string{
		"GET /v1/instances/box/logs?follow=true HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /v1/instances HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
	} {
		if _, err := io.Copy(dial(t, socket), strings.NewReader(request)); err != nil {
			t.Fatal(err)
		}
	}
	<-logs.begun
	closed := make(chan error, 1)
	go func() { closed <- s.Close(context.Background()) }()
	s.Hurry()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the server does not end")
	}
}

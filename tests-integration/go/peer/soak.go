package main

import (
	"context"
	"encoding/json"
	"flag"
	"sync"
	"time"

	"go-micro.dev/v5/broker"
	"go-micro.dev/v5/client"
	merrors "go-micro.dev/v5/errors"
	"go-micro.dev/v5/registry"
	"go-micro.dev/v5/selector"
	"go-micro.dev/v5/server"
)

func init() {
	commands["worker"] = worker
	commands["callers"] = callers
}

// Job is the request of Soak.Work.
type Job struct {
	Seconds float64 `json:"seconds"`
}

// Done is its response.
type Done struct {
	Node string `json:"node"`
}

// Soak is a node that works as long as it is told.
type Soak struct{ node string }

// Work takes its time.
func (s *Soak) Work(_ context.Context, request *Job, response *Done) error {
	time.Sleep(time.Duration(request.Seconds * float64(time.Second)))
	response.Node = s.node
	return nil
}

// worker is one node of a mesh. It stops as Go Micro's services do: it deregisters and is gone.
func worker(flags *flag.FlagSet, arguments []string) error {
	name := flags.String("name", "", "of the service")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	id := *name + "-" + server.DefaultId
	s := server.NewServer(
		server.Name(*name),
		server.Address("127.0.0.1:0"),
		server.Registry(registry.NewMDNSRegistry()),
		server.Broker(broker.NewMemoryBroker()),
	)
	if err := s.Handle(s.NewHandler(&Soak{node: id})); err != nil {
		return err
	}
	if err := s.Start(); err != nil {
		return err
	}
	say(line{"event": "ready", "address": s.Options().Address, "id": id})
	if err := wait(); err != nil {
		return err
	}
	return s.Stop()
}

// tally is what became of all calls.
type tally struct {
	sync.Mutex
	nodes    map[string]int
	failures []line
}

// callers call without an end, a pause after each call, and tell what became of it when they are asked.
func callers(flags *flag.FlagSet, arguments []string) error {
	name := flags.String("name", "", "of the service")
	count := flags.Int("count", 8, "calls at a time")
	seconds := flags.Float64("seconds", 0.005, "that a call takes")
	pause := flags.Duration("pause", 0, "after a call")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	mdns := registry.NewMDNSRegistry()
	c := client.NewClient(
		client.Registry(mdns),
		client.Selector(selector.NewSelector(selector.Registry(mdns))),
		client.Broker(broker.NewMemoryBroker()),
		client.WrapCall(remembered),
	)
	t := &tally{nodes: map[string]int{}}
	say(line{"event": "ready"})
	for range *count {
		go func() {
			for {
				t.call(c, *name, *seconds)
				time.Sleep(*pause)
			}
		}()
	}
	return obey(func(json.RawMessage) line { return t.told() })
}

// called is whom the last attempt of a call went to.
type called struct{ node string }

type calledKey struct{}

func remembered(next client.CallFunc) client.CallFunc {
	return func(ctx context.Context, node *registry.Node, request client.Request, response any, options client.CallOptions) error {
		ctx.Value(calledKey{}).(*called).node = node.Id
		return next(ctx, node, request, response, options)
	}
}

func (t *tally) call(c client.Client, name string, seconds float64) {
	whom := &called{}
	ctx := context.WithValue(context.Background(), calledKey{}, whom)
	var response Done
	began := time.Now()
	err := c.Call(ctx, c.NewRequest(name, "Soak.Work", &Job{Seconds: seconds}), &response)
	ended := time.Now()
	t.Lock()
	defer t.Unlock()
	if err == nil {
		t.nodes[response.Node]++
		return
	}
	parsed := merrors.FromError(err)
	t.failures = append(t.failures, line{"node": whom.node, "began": unix(began), "ended": unix(ended),
		"error": parsed.Detail, "code": parsed.Code})
}

// told is the tally since it was told last, as a line.
func (t *tally) told() line {
	t.Lock()
	defer t.Unlock()
	said := line{"nodes": t.nodes, "failures": append([]line{}, t.failures...)}
	t.nodes, t.failures = map[string]int{}, nil
	return said
}

func unix(at time.Time) float64 {
	return float64(at.UnixMicro()) / 1e6
}

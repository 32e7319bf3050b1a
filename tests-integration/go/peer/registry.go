package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"time"

	"go-micro.dev/v5/registry"
)

func init() {
	commands["registry"] = discover
	commands["watcher"] = watcher
}

// question is what a line of stdin wants of the registry.
type question struct {
	Do string `json:"do"`
	// Name is whom to look for.
	Name string `json:"name"`
	// Service is what to register or deregister.
	Service *registry.Service `json:"service"`
}

// discover asks the mDNS registry, or registers there, as it is told.
func discover(flags *flag.FlagSet, arguments []string) error {
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	mdns := registry.NewMDNSRegistry()
	say(line{"event": "ready"})
	return obey(func(raw json.RawMessage) line {
		var q question
		if err := json.Unmarshal(raw, &q); err != nil {
			return line{"error": problem(err)}
		}
		began := time.Now()
		found, err := answer(mdns, q)
		return line{"error": problem(err), "services": found, "seconds": time.Since(began).Seconds()}
	})
}

func answer(mdns registry.Registry, q question) ([]*registry.Service, error) {
	switch q.Do {
	case "get":
		return mdns.GetService(q.Name)
	case "list":
		return mdns.ListServices()
	case "register":
		return nil, mdns.Register(q.Service)
	case "deregister":
		return nil, mdns.Deregister(q.Service)
	}
	return nil, fmt.Errorf("unknown order: %s", q.Do)
}

// watcher says what becomes of a service's nodes.
func watcher(flags *flag.FlagSet, arguments []string) error {
	name := flags.String("name", "", "of the service")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	news, err := registry.NewMDNSRegistry().Watch(registry.WatchService(*name))
	if err != nil {
		return err
	}
	go func() {
		for {
			result, err := news.Next()
			if err != nil {
				return
			}
			for _, node := range result.Service.Nodes {
				say(line{"event": result.Action, "id": node.Id, "address": node.Address, "version": result.Service.Version,
					"metadata": node.Metadata})
			}
		}
	}()
	say(line{"event": "ready"})
	return wait()
}

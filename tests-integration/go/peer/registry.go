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

// discover asks a registry, or registers there, as it is told.
func discover(flags *flag.FlagSet, arguments []string) error {
	where := flags.String("registry", "mdns", "which, or where it is")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	asked, err := registryOf(*where)
	if err != nil {
		return err
	}
	say(line{"event": "ready"})
	return obey(func(raw json.RawMessage) line {
		var q question
		if err := json.Unmarshal(raw, &q); err != nil {
			return line{"error": problem(err)}
		}
		began := time.Now()
		found, err := answer(asked, q)
		return line{"error": problem(err), "services": found, "seconds": time.Since(began).Seconds()}
	})
}

func answer(asked registry.Registry, q question) ([]*registry.Service, error) {
	switch q.Do {
	case "get":
		return asked.GetService(q.Name)
	case "list":
		return asked.ListServices()
	case "register":
		return nil, asked.Register(q.Service)
	case "deregister":
		return nil, asked.Deregister(q.Service)
	}
	return nil, fmt.Errorf("unknown order: %s", q.Do)
}

// watcher says what becomes of a service's nodes.
func watcher(flags *flag.FlagSet, arguments []string) error {
	name := flags.String("name", "", "of the service")
	where := flags.String("registry", "mdns", "which, or where it is")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	watched, err := registryOf(*where)
	if err != nil {
		return err
	}
	news, err := watched.Watch(registry.WatchService(*name))
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

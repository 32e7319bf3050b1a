package main

import (
	"strings"

	registered "go-micro.dev/v5/registry/nats"
	carried "go-micro.dev/v5/transport/nats"

	"go-micro.dev/v5/registry"
	"go-micro.dev/v5/transport"
)

func init() {
	// An address may end with the beginning of the subjects: "127.0.0.1:4222?subjects=micro.registry.nats".
	registries["nats"] = func(where string) registry.Registry {
		address, subjects, other := strings.Cut(where, "?subjects=")
		options := []registry.Option{registry.Addrs(address)}
		if other {
			options = append(options, registered.QueryTopic(subjects+".query"), registered.WatchTopic(subjects+".watch"))
		}
		return registered.NewNatsRegistry(options...)
	}
	transports["nats"] = func(address string) transport.Transport {
		return carried.NewTransport(transport.Addrs(address))
	}
}

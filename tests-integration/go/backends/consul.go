package main

import (
	"go-micro.dev/v5/registry"
	"go-micro.dev/v5/registry/consul"
)

func init() {
	registries["consul"] = func(address string) registry.Registry {
		return consul.NewConsulRegistry(registry.Addrs(address))
	}
}

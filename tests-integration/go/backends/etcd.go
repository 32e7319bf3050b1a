package main

import (
	"go-micro.dev/v5/registry"
	"go-micro.dev/v5/registry/etcd"
)

func init() {
	registries["etcd"] = func(address string) registry.Registry {
		return etcd.NewEtcdRegistry(registry.Addrs(address))
	}
}

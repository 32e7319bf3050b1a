package main

import (
	"go-micro.dev/v5/broker"
	"go-micro.dev/v5/broker/nats"
)

func init() {
	brokers["nats"] = func(address string) broker.Broker {
		return nats.NewNatsBroker(broker.Addrs(address))
	}
}

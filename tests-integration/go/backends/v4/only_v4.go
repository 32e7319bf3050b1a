package main

import (
	"github.com/go-micro/plugins/v4/broker/kafka"
	"github.com/go-micro/plugins/v4/broker/redis"
	"go-micro.dev/v4/broker"
)

func init() {
	brokers["kafka"] = func(address string) broker.Broker {
		return kafka.NewBroker(broker.Addrs(address))
	}
	brokers["redis"] = func(address string) broker.Broker {
		return redis.NewBroker(broker.Addrs(address))
	}
}

package main

import (
	"context"

	"go-micro.dev/v5/broker"
	"go-micro.dev/v5/broker/rabbitmq"
)

func init() {
	brokers["amqp"] = func(address string) broker.Broker {
		return rabbitmq.NewBroker(broker.Addrs("amqp://" + address))
	}
	acknowledging = func() context.Context {
		options := broker.SubscribeOptions{Context: context.Background()}
		rabbitmq.AckOnSuccess()(&options)
		rabbitmq.RequeueOnError()(&options)
		return options.Context
	}
}

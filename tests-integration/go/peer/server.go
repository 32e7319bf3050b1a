package main

import (
	"context"
	"flag"

	"go-micro.dev/v5/broker"
	"go-micro.dev/v5/server"
)

func init() { commands["server"] = serve }

// serve is a service with the handlers Greeter and Streams.
func serve(flags *flag.FlagSet, arguments []string) error {
	name := flags.String("name", "greeter", "of the service")
	version := flags.String("version", "latest", "of the service")
	id := flags.String("id", server.DefaultId, "of the node")
	address := flags.String("address", "127.0.0.1:0", "where to listen")
	where := flags.String("registry", "memory", "memory, mdns, or where it is")
	ttl := flags.Duration("ttl", server.DefaultRegisterTTL, "after which the registry forgets the node")
	interval := flags.Duration("interval", server.DefaultRegisterInterval, "in which the node renews itself")
	medium := flags.String("transport", "http", "http, or where it is")
	ca := flags.String("ca", "", "authority that clients trust, PEM")
	cert := flags.String("cert", "", "certificate, PEM: serve TLS")
	key := flags.String("key", "", "the certificate's key, PEM")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	carrier, err := transportOf(*medium, *ca, *cert, *key)
	if err != nil {
		return err
	}
	found, err := registryOf(*where)
	if err != nil {
		return err
	}
	s := server.NewServer(
		server.Name(*name),
		server.Version(*version),
		server.Id(*id),
		server.Address(*address),
		server.Registry(found),
		server.RegisterTTL(*ttl),
		server.RegisterInterval(*interval),
		server.Broker(broker.NewMemoryBroker()),
		server.Transport(carrier),
		server.WrapHandler(announced),
	)
	if err := handle(s); err != nil {
		return err
	}
	if err := s.Start(); err != nil {
		return err
	}
	options := s.Options()
	say(line{"event": "ready", "address": options.Address, "id": options.Name + "-" + options.Id})
	if err := wait(); err != nil {
		return err
	}
	if err := s.Stop(); err != nil {
		return err
	}
	found.GetService(*name) // the goodbye to NATS may still be in the connection, and gets out before this question
	return nil
}

func handle(s server.Server) error {
	for _, handler := range []any{&Greeter{meetings: map[int]chan struct{}{}}, &Streams{}} {
		if err := s.Handle(s.NewHandler(handler)); err != nil {
			return err
		}
	}
	return nil
}

// announced says which endpoint begins, and how it ends.
func announced(next server.HandlerFunc) server.HandlerFunc {
	return func(ctx context.Context, request server.Request, response any) error {
		say(line{"event": "called", "endpoint": request.Endpoint(), "type": request.ContentType()})
		err := next(ctx, request, response)
		say(line{"event": "returned", "endpoint": request.Endpoint(), "error": problem(err)})
		return err
	}
}

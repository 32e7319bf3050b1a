package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"go-micro.dev/v5/broker"
	"go-micro.dev/v5/logger"
	"go-micro.dev/v5/registry"
	"go-micro.dev/v5/server"
)

// Greeter is the handler.
type Greeter struct{}

// Hello greets.
func (*Greeter) Hello(_ context.Context, request *HelloRequest, response *HelloResponse) error {
	response.Greeting = "Hello " + request.Name
	return nil
}

// Echo gives the bytes back.
func (*Greeter) Echo(_ context.Context, request *Blob, response *Blob) error {
	response.Data = request.Data
	return nil
}

// serve runs until SIGTERM. The one line of output is the address.
func serve() error {
	logger.DefaultLogger = logger.NewLogger(logger.WithLevel(logger.ErrorLevel))
	s := server.NewServer(
		server.Name("greeter"),
		server.Address("127.0.0.1:0"),
		server.Registry(registry.NewMemoryRegistry()),
		server.Broker(broker.NewMemoryBroker()),
	)
	if err := s.Handle(s.NewHandler(&Greeter{})); err != nil {
		return err
	}
	if err := s.Start(); err != nil {
		return err
	}
	fmt.Println(s.Options().Address)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
	return s.Stop()
}

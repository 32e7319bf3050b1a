package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand"
	"time"

	"go-micro.dev/v5/client"
	"go-micro.dev/v5/logger"
	"go-micro.dev/v5/registry"
)

// caller makes one call, of which there are many kinds, and checks the answer.
type caller func(number int) error

// call is the client: it warms up, says so, waits for a line, and makes the load.
func call(arguments []string) error {
	flags := flag.NewFlagSet("call", flag.ExitOnError)
	address := flags.String("address", "", "host:port of the server")
	shape := flags.String("shape", "hello", "hello or echo")
	size := flags.Int("size", 0, "bytes of an echo")
	inFlight := flags.Int("in-flight", 1, "calls at a time")
	seconds := flags.Float64("seconds", 1, "how long")
	warmUp := flags.Float64("warm-up", 0.3, "how long before that")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	logger.DefaultLogger = logger.NewLogger(logger.WithLevel(logger.ErrorLevel))
	c := client.NewClient(
		client.ContentType("application/json"),
		client.Registry(registry.NewMemoryRegistry()),
	)
	one := hello(c, *address)
	if *shape == "echo" {
		one = echo(c, *address, *size)
	}
	return measure(one, *inFlight, duration(*warmUp), duration(*seconds))
}

func duration(seconds float64) time.Duration {
	return time.Duration(seconds * float64(time.Second))
}

func hello(c client.Client, address string) caller {
	const names = 1000
	requests, greetings := make([]*HelloRequest, names), make([]string, names)
	for i := range requests {
		requests[i] = &HelloRequest{Name: fmt.Sprintf("J%03d", i)}
		greetings[i] = "Hello " + requests[i].Name
	}
	return func(number int) error {
		var response HelloResponse
		request := c.NewRequest("greeter", "Greeter.Hello", requests[number%names])
		if err := c.Call(context.Background(), request, &response, client.WithAddress(address)); err != nil {
			return err
		}
		if response.Greeting != greetings[number%names] {
			return fmt.Errorf("wrong reply: %q", response.Greeting)
		}
		return nil
	}
}

func echo(c client.Client, address string, size int) caller {
	const bodies = 16
	draw := rand.New(rand.NewSource(1))
	requests := make([]*Blob, bodies)
	for i := range requests {
		requests[i] = &Blob{Data: make([]byte, size)}
		draw.Read(requests[i].Data)
	}
	return func(number int) error {
		var response Blob
		asked := requests[number%bodies]
		request := c.NewRequest("greeter", "Greeter.Echo", asked)
		if err := c.Call(context.Background(), request, &response, client.WithAddress(address)); err != nil {
			return err
		}
		if !bytes.Equal(response.Data, asked.Data) {
			return fmt.Errorf("wrong reply of %d bytes", len(response.Data))
		}
		return nil
	}
}

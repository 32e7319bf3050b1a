package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"sync"
	"time"

	"go-micro.dev/v5/client"
	frames "go-micro.dev/v5/codec/bytes"
	"go-micro.dev/v5/metadata"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func init() { commands["client"] = run }

// caller is the client and its one stream.
type caller struct {
	client  client.Client
	service string
	address string
	options []client.CallOption
	stream  client.Stream
}

// order is what a line of stdin wants.
type order struct {
	Do string `json:"do"`
	// Endpoint and Body: what is called, and the request.
	Endpoint string          `json:"endpoint"`
	Body     json.RawMessage `json:"body"`
	// As says what type request and response have: "" for whatever JSON, "string", "empty", "frame".
	As string `json:"as"`
	// Type is the content type; "" for the client's.
	Type     string            `json:"type"`
	Metadata map[string]string `json:"metadata"`
	// Size of a frame that is made here; Times and Parallel: how many calls, and how many at a time.
	Size     int `json:"size"`
	Times    int `json:"times"`
	Parallel int `json:"parallel"`
}

// run makes calls as it is told.
func run(flags *flag.FlagSet, arguments []string) error {
	service := flags.String("service", "greeter", "whom to call")
	address := flags.String("address", "", "of the node; none: ask the registry")
	where := flags.String("registry", "memory", "memory, mdns, or where it is")
	medium := flags.String("transport", "http", "http, or where it is")
	contentType := flags.String("type", "application/json", "of the bodies")
	timeout := flags.Duration("timeout", 0, "of one attempt; 0: Go Micro's own")
	retries := flags.Int("retries", -1, "after the first attempt; -1: Go Micro's own number")
	hurry := flags.Bool("hurry", false, "do not wait before another attempt")
	closing := flags.Bool("close", false, "ask the server to close the connection after each call")
	ca := flags.String("ca", "", "authority to trust, PEM: use TLS")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	carrier, err := transportOf(*medium, *ca, "", "")
	if err != nil {
		return err
	}
	found, err := registryOf(*where)
	if err != nil {
		return err
	}
	c := &caller{service: *service, address: *address}
	c.client = client.NewClient(client.ContentType(*contentType), client.Registry(found), client.Transport(carrier))
	if *address != "" {
		c.options = append(c.options, client.WithAddress(*address))
	}
	if *timeout > 0 {
		c.options = append(c.options, func(o *client.CallOptions) { o.ConnectionTimeout = *timeout })
	}
	if *retries >= 0 {
		c.options = append(c.options, client.WithRetries(*retries))
	}
	if *hurry {
		c.options = append(c.options, client.WithBackoff(atOnce))
	}
	if *closing {
		c.options = append(c.options, client.WithConnClose())
	}
	say(line{"event": "ready"})
	return obey(c.obey)
}

func atOnce(context.Context, client.Request, int) (time.Duration, error) {
	return 0, nil
}

func (c *caller) obey(raw json.RawMessage) line {
	var o order
	if err := json.Unmarshal(raw, &o); err != nil {
		return line{"error": problem(err)}
	}
	switch o.Do {
	case "call":
		return c.call(o)
	case "greet":
		return c.greet(o)
	case "open":
		return c.open(o)
	case "send":
		return line{"error": problem(c.stream.Send(o.Body))}
	case "receive":
		return c.receive(o)
	case "close":
		return line{"error": problem(c.stream.Close())}
	}
	return line{"error": problem(fmt.Errorf("unknown order: %s", o.Do))}
}

func (o order) context() context.Context {
	if o.Metadata == nil {
		return context.Background()
	}
	return metadata.NewContext(context.Background(), o.Metadata)
}

func (c *caller) request(o order, body any) client.Request {
	var options []client.RequestOption
	if o.Type != "" {
		options = append(options, client.WithContentType(o.Type))
	}
	return c.client.NewRequest(c.service, o.Endpoint, body, options...)
}

// call makes one call.
func (c *caller) call(o order) line {
	request, response := o.bodies()
	began := time.Now()
	err := c.client.Call(o.context(), c.request(o, request), response, c.options...)
	said := line{"error": problem(err), "seconds": time.Since(began).Seconds()}
	if err == nil {
		said["reply"] = told(response)
	}
	return said
}

func (o order) bodies() (request, response any) {
	switch o.As {
	case "string":
		var text string
		fail(json.Unmarshal(o.Body, &text))
		return wrapperspb.String(text), new(wrapperspb.StringValue)
	case "empty":
		return new(emptypb.Empty), new(emptypb.Empty)
	case "frame":
		return &frames.Frame{Data: pattern(o.Size)}, new(frames.Frame)
	}
	return o.Body, new(json.RawMessage)
}

func told(response any) any {
	switch value := response.(type) {
	case *wrapperspb.StringValue:
		return value.Value
	case *frames.Frame:
		if len(value.Data) < 1000 {
			return base64.StdEncoding.EncodeToString(value.Data)
		}
		return digest(value.Data)
	case *json.RawMessage:
		return value
	}
	return nil
}

// greet makes many calls of Greeter.Hello and checks each answer.
func (c *caller) greet(o order) line {
	numbers := make(chan int)
	var good, bad int
	var last error
	var lock sync.Mutex
	var workers sync.WaitGroup
	for range max(o.Parallel, 1) {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for number := range numbers {
				err := c.hello(o, fmt.Sprintf("n%d", number))
				lock.Lock()
				if err == nil {
					good++
				} else {
					bad, last = bad+1, err
				}
				lock.Unlock()
			}
		}()
	}
	for number := range max(o.Times, 1) {
		numbers <- number
	}
	close(numbers)
	workers.Wait()
	return line{"good": good, "bad": bad, "error": problem(last)}
}

func (c *caller) hello(o order, name string) error {
	var response HelloResponse
	o.Endpoint = "Greeter.Hello"
	err := c.client.Call(o.context(), c.request(o, &HelloRequest{Name: name}), &response, c.options...)
	if err == nil && response.Greeting != "Hello "+name {
		return fmt.Errorf("%s was greeted as %q", name, response.Greeting)
	}
	return err
}

// open begins a stream. The body of the message that opens it is not for the handler.
func (c *caller) open(o order) line {
	stream, err := c.client.Stream(o.context(), c.request(o, o.Body), c.options...)
	c.stream = stream
	return line{"error": problem(err)}
}

// receive takes so many messages of the stream, or those until its end.
func (c *caller) receive(o order) line {
	replies := []json.RawMessage{}
	for range max(o.Times, 1) {
		var reply json.RawMessage
		if err := c.stream.Recv(&reply); err != nil {
			return line{"replies": replies, "error": problem(err)}
		}
		replies = append(replies, reply)
	}
	return line{"replies": replies, "error": nil}
}

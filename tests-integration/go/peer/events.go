package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"

	"go-micro.dev/v5/broker"
	"go-micro.dev/v5/client"
	"go-micro.dev/v5/metadata"
	"go-micro.dev/v5/registry"
	"go-micro.dev/v5/server"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func init() {
	commands["publisher"] = publisher
	commands["subscriber"] = subscriber
}

// Event is what is published in JSON.
type Event struct {
	Text   string `json:"text"`
	Number int    `json:"number"`
	Data   []byte `json:"data"`
}

// publication is what a line of stdin wants: to publish, or to wait for subscribers.
type publication struct {
	Do string `json:"do"`
	// As says what it is: "json", "protobuf", or "bare" for protobuf without any header.
	As       string            `json:"as"`
	Topic    string            `json:"topic"`
	Event    Event             `json:"event"`
	Metadata map[string]string `json:"metadata"`
	// Times: how many events, numbered from the event's number on; or how many subscribers.
	Times int `json:"times"`
}

// publisher publishes what it is told.
func publisher(flags *flag.FlagSet, arguments []string) error {
	where := flags.String("broker", "http", "http, or where it is")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	b, err := brokerOf(*where)
	if err != nil {
		return err
	}
	if err := b.Connect(); err != nil {
		return err
	}
	c := client.NewClient(client.Broker(b))
	say(line{"event": "ready"})
	return obey(func(raw json.RawMessage) line {
		p := publication{Times: 1}
		err := json.Unmarshal(raw, &p)
		if p.Do == "wait" {
			return line{"error": problem(p.wait())}
		}
		for i := 0; err == nil && i < p.Times; i++ {
			err = p.publish(c, b)
			p.Event.Number++
		}
		return line{"error": problem(err)}
	})
}

// wait returns when so many subscribers of the topic are found, since what is published before that is lost.
func (p publication) wait() error {
	mdns := registry.NewMDNSRegistry()
	for {
		services, err := mdns.GetService("micro.http.broker")
		if err != nil {
			return err
		}
		found := 0
		for _, service := range services {
			for _, node := range service.Nodes {
				if node.Metadata["topic"] == p.Topic {
					found++
				}
			}
		}
		if found >= p.Times {
			return nil
		}
	}
}

func (p publication) publish(c client.Client, b broker.Broker) error {
	ctx := metadata.NewContext(context.Background(), p.Metadata)
	switch p.As {
	case "json":
		return c.Publish(ctx, c.NewMessage(p.Topic, &p.Event))
	case "protobuf":
		kind := client.WithMessageContentType("application/protobuf")
		return c.Publish(ctx, c.NewMessage(p.Topic, wrapperspb.String(p.Event.Text), kind))
	case "bare":
		body, err := proto.Marshal(wrapperspb.String(p.Event.Text))
		if err != nil {
			return err
		}
		return b.Publish(p.Topic, &broker.Message{Body: body})
	}
	return fmt.Errorf("unknown kind of event: %s", p.As)
}

// subscriber is a service that says which events reach it.
func subscriber(flags *flag.FlagSet, arguments []string) error {
	topic := flags.String("topic", "", "of the events")
	queue := flags.String("queue", "", "whose members share the events; none: each event")
	as := flags.String("as", "json", "what the handler takes: json or protobuf")
	where := flags.String("broker", "http", "http, or where it is")
	acks := flags.Bool("acks", false, "acknowledge an event when it was handled; one that failed comes again")
	hold := flags.Bool("hold", false, "do not get done with an event")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	b, err := brokerOf(*where)
	if err != nil {
		return err
	}
	s := server.NewServer(
		server.Name("subscriber"),
		server.Address("127.0.0.1:0"),
		server.Registry(registry.NewMemoryRegistry()),
		server.Broker(b),
	)
	var handler any = func(ctx context.Context, event *Event) error { return received(ctx, event, *hold) }
	if *as == "protobuf" {
		handler = func(ctx context.Context, event *wrapperspb.StringValue) error {
			return received(ctx, event.Value, *hold)
		}
	}
	options := []server.SubscriberOption{server.SubscriberQueue(*queue)}
	if *acks {
		options = append(options, server.DisableAutoAck(), server.SubscriberContext(acknowledging()))
	}
	if err := s.Subscribe(s.NewSubscriber(*topic, handler, options...)); err != nil {
		return err
	}
	if err := s.Start(); err != nil {
		return err
	}
	say(line{"event": "ready", "address": b.Address()})
	if err := wait(); err != nil {
		return err
	}
	return s.Stop()
}

// acknowledging is the context of subscriptions that acknowledge, of the one broker that has such.
var acknowledging = context.Background

func received(ctx context.Context, value any, hold bool) error {
	headers, _ := metadata.FromContext(ctx)
	say(line{"event": "received", "value": value, "headers": headers})
	if hold {
		select {}
	}
	return nil
}

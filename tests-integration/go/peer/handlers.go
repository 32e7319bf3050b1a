package main

import (
	"context"
	"errors"
	"sync"
	"time"

	frames "go-micro.dev/v5/codec/bytes"
	merrors "go-micro.dev/v5/errors"
	"go-micro.dev/v5/metadata"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Nothing is an empty message.
type Nothing struct{}

// Greeter has the calls of one request and one response.
type Greeter struct {
	lock     sync.Mutex
	waiting  int
	meetings map[int]chan struct{}
}

// Hello greets.
func (*Greeter) Hello(_ context.Context, request *HelloRequest, response *HelloResponse) error {
	response.Greeting = "Hello " + request.Name
	return nil
}

// Proto greets in protobuf.
func (*Greeter) Proto(_ context.Context, request, response *wrapperspb.StringValue) error {
	response.Value = "Hello " + request.Value
	return nil
}

// Empty takes and gives a message without a field.
func (*Greeter) Empty(_ context.Context, _, _ *emptypb.Empty) error {
	return nil
}

// Raw gives the bytes back.
func (*Greeter) Raw(_ context.Context, request, response *frames.Frame) error {
	response.Data = request.Data
	return nil
}

// Failure is the error that Fail shall return.
type Failure struct {
	ID     string `json:"id"`
	Code   int32  `json:"code"`
	Detail string `json:"detail"`
}

// Fail returns an error of Go Micro's.
func (*Greeter) Fail(_ context.Context, request *Failure, _ *Nothing) error {
	return merrors.New(request.ID, request.Detail, request.Code)
}

// Plain returns an error that is only a text.
func (*Greeter) Plain(_ context.Context, request *Failure, _ *Nothing) error {
	return errors.New(request.Detail)
}

// Panic never answers.
func (*Greeter) Panic(_ context.Context, _, _ *Nothing) error {
	panic("as the caller wished")
}

// Party is how many callers have to be there.
type Party struct {
	Size int `json:"size"`
}

// Meet returns when so many calls of it are under way.
func (g *Greeter) Meet(_ context.Context, request *Party, _ *Nothing) error {
	g.lock.Lock()
	met, known := g.meetings[request.Size]
	if !known {
		met = make(chan struct{})
		g.meetings[request.Size] = met
	}
	g.waiting++
	if g.waiting == request.Size {
		g.waiting = 0
		delete(g.meetings, request.Size)
		close(met)
	}
	g.lock.Unlock()
	select {
	case <-met:
		return nil
	case <-time.After(10 * time.Second):
		return errors.New("alone")
	}
}

// Circumstances are what a handler sees beside its request.
type Circumstances struct {
	Metadata map[string]string `json:"metadata"`
	// Left is the nanoseconds until the deadline; 0 without one.
	Left int64 `json:"left"`
}

// Around tells the caller about its metadata and deadline.
func (*Greeter) Around(ctx context.Context, _ *Nothing, response *Circumstances) error {
	if deadline, limited := ctx.Deadline(); limited {
		response.Left = int64(time.Until(deadline))
	}
	response.Metadata, _ = metadata.FromContext(ctx)
	return nil
}

// Measure tells how long one value of the metadata is.
func (*Greeter) Measure(ctx context.Context, _ *Nothing, response *Party) error {
	value, _ := metadata.Get(ctx, "Big")
	response.Size = len(value)
	return nil
}

package main

import (
	"context"
	"log"

	"go-micro.dev/v5"
	"go-micro.dev/v5/errors"
)

type Item struct {
	Name string `json:"name"`
}

type Price struct {
	Cents int `json:"cents"`
}

type Prices struct{}

func (Prices) Of(_ context.Context, item *Item, price *Price) error {
	if item.Name != "apples" {
		return errors.NotFound("prices", "no price of %s", item.Name)
	}
	price.Cents = 120
	return nil
}

func main() {
	service := micro.NewService(micro.Name("prices"), micro.AfterStart(func() error {
		log.Print("service started")
		return nil
	}))
	service.Init()
	if err := micro.RegisterHandler(service.Server(), Prices{}); err != nil {
		log.Fatal(err)
	}
	if err := service.Run(); err != nil {
		log.Fatal(err)
	}
}

package main

import (
	"context"
	"fmt"
	"os"

	"go-micro.dev/v5"
	"go-micro.dev/v5/errors"
)

type Item struct {
	Name string `json:"name"`
}

type Amount struct {
	Pieces int `json:"pieces"`
}

func main() {
	client := micro.NewService(micro.Name("order")).Client()
	item := Item{Name: os.Args[1]}
	var amount Amount
	if err := client.Call(context.Background(), client.NewRequest("stock", "Stock.Count", &item), &amount); err != nil {
		problem := errors.FromError(err)
		fmt.Println(problem.Code, problem.Detail)
		return
	}
	fmt.Println(amount.Pieces, item.Name, "in stock")
}

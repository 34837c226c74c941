// Calls a server with a client that oapi-codegen has made.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"time"

	"example.com/caller/client"
)

func main() {
	api, err := client.NewClientWithResponses(os.Args[1])
	check(err)
	ctx := context.Background()

	key := "oapi-codegen"
	body := client.CreateRequest{Type: "nap", Args: &map[string]any{"ms": "1"}}
	created, err := api.RequestManagerCreateWithResponse(ctx, &client.RequestManagerCreateParams{IdempotencyKey: &key}, body)
	check(err)
	request := created.JSON201
	for request.State != client.STATECOMPLETE {
		time.Sleep(50 * time.Millisecond)
		got, err := api.RequestManagerGetWithResponse(ctx, request.Id, nil)
		check(err)
		request = got.JSON200
	}
	log, err := api.RequestManagerGetLogWithResponse(ctx, request.Id, nil)
	check(err)
	unknown, err := api.RequestManagerGetWithResponse(ctx, "nosuch", nil)
	check(err)
	if unknown.JSON404.HttpStatus != http.StatusNotFound {
		panic("the error has the wrong status")
	}
	fmt.Println("complete", request.FinishedJobs, "log", len(*log.JSON200), "error", unknown.StatusCode())
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

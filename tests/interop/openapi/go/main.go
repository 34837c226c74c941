// Calls a server with a client that openapi-generator has made.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	openapi "github.com/example/client"
)

func main() {
	config := openapi.NewConfiguration()
	config.Servers = openapi.ServerConfigurations{{URL: os.Args[1]}}
	api := openapi.NewAPIClient(config).RequestManagerAPI
	ctx := context.Background()

	body := openapi.CreateRequest{Type: "nap", Args: map[string]any{"ms": "1"}}
	request, _, err := api.RequestManagerCreate(ctx).CreateRequest(body).IdempotencyKey("go").Execute()
	check(err)
	for request.State != openapi.STATE_COMPLETE {
		time.Sleep(50 * time.Millisecond)
		request, _, err = api.RequestManagerGet(ctx, request.Id).Execute()
		check(err)
	}
	log, _, err := api.RequestManagerGetLog(ctx, request.Id).Execute()
	check(err)
	_, response, err := api.RequestManagerGet(ctx, "nosuch").Execute()
	if err == nil {
		panic("an unknown request was found")
	}
	fmt.Println("complete", request.FinishedJobs, "log", len(log), "error", response.StatusCode)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

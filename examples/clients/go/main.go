// Follow creates a request, follows it to its end, and prints its log.
//
//	follow run TYPE [NAME=VALUE ...]
//	follow stop REQUEST_ID
//
// connection.go says which environment variables name the server.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	spincycle "example.com/follow/gen"
)

const (
	pause = time.Second // before a call is repeated
	tries = 5           // of Create
)

var errNotComplete = errors.New("the request is not complete")

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		if reason := reasonOf(err); reason != "" {
			fmt.Fprintf(os.Stderr, "error %s: %s\n", reason, status.Convert(err).Message())
		} else {
			fmt.Fprintln(os.Stderr, "error:", err)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: follow run TYPE [NAME=VALUE ...] | follow stop REQUEST_ID")
	}
	conn, err := connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	client := spincycle.NewRequestManagerClient(conn)
	switch args[0] {
	case "run":
		return follow(ctx, client, args[1], args[2:])
	case "stop":
		_, err := client.Stop(ctx, &spincycle.StopRequest{RequestId: args[1]})
		return err
	default:
		return fmt.Errorf("unknown command %q", args[0])
	}
}

// follow creates a request, watches it, and prints its log.
func follow(ctx context.Context, client spincycle.RequestManagerClient, requestType string, args []string) error {
	request, err := create(ctx, client, requestType, args)
	if err != nil {
		if reasonOf(err) == "UNKNOWN_REQUEST_TYPE" {
			printTypes(ctx, client)
		}
		return err
	}
	fmt.Println("created", request.GetId())
	final, err := watch(ctx, client, request.GetId())
	if err != nil {
		return err
	}
	if err := printLog(ctx, client, request.GetId()); err != nil {
		return err
	}
	if final != spincycle.State_STATE_COMPLETE {
		return errNotComplete
	}
	return nil
}

// create creates a request. All tries have one idempotency key, so they create one request.
func create(
	ctx context.Context, client spincycle.RequestManagerClient, requestType string, args []string,
) (*spincycle.Request, error) {
	values := map[string]any{}
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		values[name] = value
	}
	structArgs, err := structpb.NewStruct(values)
	if err != nil {
		return nil, err
	}
	key := rand.Text()
	request := &spincycle.CreateRequest{Type: requestType, Args: structArgs, IdempotencyKey: &key}
	for try := 1; ; try++ {
		response, err := client.Create(ctx, request)
		if try == tries || !isTemporary(err) {
			return response.GetRequest(), err
		}
		time.Sleep(pause)
	}
}

// watch prints what happens to a request until its end, and returns its final state. After a
// failure it continues after the last message that it received.
func watch(ctx context.Context, client spincycle.RequestManagerClient, id string) (spincycle.State, error) {
	follower := follower{client: client, position: &spincycle.WatchRequest{RequestId: id}}
	for {
		if err := follower.readStream(ctx); !isTemporary(err) {
			return follower.state, err
		}
		time.Sleep(pause)
	}
}

type follower struct {
	client   spincycle.RequestManagerClient
	position *spincycle.WatchRequest
	state    spincycle.State
}

// readStream prints the messages of one stream. It returns nil when the request has ended.
func (f *follower) readStream(ctx context.Context) error {
	stream, err := f.client.Watch(ctx, f.position)
	if err != nil {
		return err
	}
	for {
		message, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		f.print(message)
		f.position.Cursor = message.GetCursor()
	}
}

func (f *follower) print(message *spincycle.WatchResponse) {
	for _, try := range message.GetTries() {
		fmt.Printf("tried %s, try %d: %s\n", try.GetName(), try.GetTry(), nameOf(try.GetState()))
	}
	for _, request := range message.GetRequests() {
		f.state = request.GetState()
		fmt.Printf("%s, %d of %d jobs\n", nameOf(f.state), request.GetFinishedJobs(), request.GetTotalJobs())
	}
}

// printLog prints all tries of all jobs, page by page.
func printLog(ctx context.Context, client spincycle.RequestManagerClient, id string) error {
	request := &spincycle.GetLogRequest{RequestId: id}
	for {
		page, err := client.GetLog(ctx, request)
		if err != nil {
			return err
		}
		for _, entry := range page.GetEntries() {
			fmt.Printf("log %s, try %d: %s, exit %d\n", entry.GetName(), entry.GetTry(), nameOf(entry.GetState()), entry.GetExit())
			for _, text := range []string{entry.GetStdout(), entry.GetStderr()} {
				for line := range strings.Lines(text) {
					fmt.Println("  " + strings.TrimSuffix(line, "\n"))
				}
			}
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return nil
		}
	}
}

func printTypes(ctx context.Context, client spincycle.RequestManagerClient) {
	list, err := client.RequestList(ctx, &spincycle.RequestListRequest{})
	if err != nil {
		return
	}
	for _, spec := range list.GetSpecs() {
		fmt.Fprintln(os.Stderr, "known type:", spec.GetName())
	}
}

func nameOf(state spincycle.State) string {
	return strings.TrimPrefix(state.String(), "STATE_")
}

// isTemporary says whether a call that is safe to repeat may succeed later.
func isTemporary(err error) bool {
	if reasonOf(err) == "CREDENTIALS_ENDED" {
		return true // The token file may have a new token.
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.ResourceExhausted, codes.DeadlineExceeded:
		return true
	default:
		return false
	}
}

// reasonOf returns the reason of an error, for example "UNKNOWN_REQUEST_TYPE". docs/errors.md lists
// all reasons. An error that does not come from the server has none.
func reasonOf(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

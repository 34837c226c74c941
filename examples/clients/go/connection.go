package main

import (
	"context"
	_ "embed"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // The service config asks for health checks.
	"google.golang.org/grpc/keepalive"
)

const deadline = 10 * time.Second

// serviceConfig says which calls gRPC repeats, and that it uses all addresses of a name.
//
//go:embed gen/service_config.json
var serviceConfig string

// connect opens a channel to $SPINC_ADDR. $SPINC_CA, a PEM file, turns on TLS, and $SPINC_TOKEN_FILE
// has the token of the user. The channel connects with the first call.
func connect() (*grpc.ClientConn, error) {
	address := os.Getenv("SPINC_ADDR")
	if address == "" {
		address = "localhost:32318"
	}
	transport := insecure.NewCredentials()
	if ca := os.Getenv("SPINC_CA"); ca != "" {
		var err error
		if transport, err = credentials.NewClientTLSFromFile(ca, ""); err != nil {
			return nil, err
		}
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithUnaryInterceptor(withDeadline),
		// Notice within 40 seconds that a server is gone, although the connection is not closed.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	}
	if file := os.Getenv("SPINC_TOKEN_FILE"); file != "" {
		options = append(options, grpc.WithPerRPCCredentials(tokenFile(file)))
	}
	return grpc.NewClient(address, options...)
}

// withDeadline limits the time of each call. The stream of Watch has no limit.
func withDeadline(
	ctx context.Context, method string, request, response any, conn *grpc.ClientConn,
	invoke grpc.UnaryInvoker, options ...grpc.CallOption,
) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	return invoke(ctx, method, request, response, conn, options...)
}

// tokenFile is the path of a file with a token. The file is read for each call, so the token may change.
type tokenFile string

func (file tokenFile) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token, err := os.ReadFile(string(file))
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + strings.TrimSpace(string(token))}, nil
}

// RequireTransportSecurity keeps a token from being sent in plain text.
func (tokenFile) RequireTransportSecurity() bool { return true }

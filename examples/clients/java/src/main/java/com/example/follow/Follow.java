package com.example.follow;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Struct;
import com.google.protobuf.Value;
import com.google.rpc.ErrorInfo;
import dev.spincycle.v1.CreateRequest;
import dev.spincycle.v1.GetLogRequest;
import dev.spincycle.v1.GetLogResponse;
import dev.spincycle.v1.JobLog;
import dev.spincycle.v1.Request;
import dev.spincycle.v1.RequestListRequest;
import dev.spincycle.v1.RequestManagerGrpc;
import dev.spincycle.v1.RequestManagerGrpc.RequestManagerBlockingStub;
import dev.spincycle.v1.RequestSpec;
import dev.spincycle.v1.State;
import dev.spincycle.v1.StopRequest;
import dev.spincycle.v1.WatchRequest;
import dev.spincycle.v1.WatchResponse;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.util.Iterator;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.TimeUnit;

/**
 * Creates a request, follows it to its end, and prints its log.
 *
 * <pre>
 *   follow run TYPE [NAME=VALUE ...]
 *   follow stop REQUEST_ID
 * </pre>
 *
 * {@link Connection} says which environment variables name the server.
 */
public final class Follow {
  private static final int DEADLINE_SECONDS = 10;
  private static final int PAUSE_MILLIS = 1000;
  private static final int CREATE_TRIES = 5;

  private final RequestManagerBlockingStub stub;

  private Follow(RequestManagerBlockingStub stub) {
    this.stub = stub;
  }

  public static void main(String[] args) throws Exception {
    System.exit(call(List.of(args)));
  }

  private static int call(List<String> args) throws Exception {
    if (args.size() < 2) {
      System.err.println("usage: follow run TYPE [NAME=VALUE ...] | follow stop REQUEST_ID");
      return 2;
    }
    ManagedChannel channel = Connection.open();
    try {
      Follow follow = new Follow(RequestManagerGrpc.newBlockingStub(channel));
      return switch (args.get(0)) {
        case "run" -> follow.run(args.get(1), args.subList(2, args.size()));
        case "stop" -> follow.stop(args.get(1));
        default -> throw new IllegalArgumentException("unknown command " + args.get(0));
      };
    } catch (StatusRuntimeException e) {
      System.err.printf("error %s: %s%n", reasonOf(e), e.getStatus().getDescription());
      return 1;
    } finally {
      channel.shutdownNow();
    }
  }

  private int run(String type, List<String> args) throws InterruptedException {
    Request request = create(type, args);
    System.out.println("created " + request.getId());
    State state = watch(request.getId());
    printLog(request.getId());
    return state == State.STATE_COMPLETE ? 0 : 1;
  }

  private int stop(String id) {
    withDeadline().stop(StopRequest.newBuilder().setRequestId(id).build());
    return 0;
  }

  /** Creates a request. All tries have one idempotency key, so they create one request. */
  private Request create(String type, List<String> args) throws InterruptedException {
    Struct.Builder values = Struct.newBuilder();
    for (String arg : args) {
      String[] parts = arg.split("=", 2);
      values.putFields(parts[0], Value.newBuilder().setStringValue(parts[1]).build());
    }
    CreateRequest request =
        CreateRequest.newBuilder()
            .setType(type)
            .setArgs(values)
            .setIdempotencyKey(UUID.randomUUID().toString())
            .build();
    for (int attempt = 1; ; attempt++) {
      try {
        return withDeadline().create(request).getRequest();
      } catch (StatusRuntimeException e) {
        if (reasonOf(e).equals("UNKNOWN_REQUEST_TYPE")) {
          printTypes();
        }
        if (attempt == CREATE_TRIES || !isTemporary(e)) {
          throw e;
        }
        Thread.sleep(PAUSE_MILLIS);
      }
    }
  }

  /**
   * Prints what happens to a request until its end, and returns its final state. After a failure it continues after
   * the last message that it received.
   */
  private State watch(String id) throws InterruptedException {
    State state = State.STATE_UNKNOWN;
    WatchRequest.Builder position = WatchRequest.newBuilder().setRequestId(id);
    while (true) {
      try {
        Iterator<WatchResponse> messages = stub.watch(position.build());
        while (messages.hasNext()) {
          WatchResponse message = messages.next();
          print(message);
          for (Request request : message.getRequestsList()) {
            state = request.getState();
          }
          position.setCursor(message.getCursor());
        }
        return state;
      } catch (StatusRuntimeException e) {
        if (!isTemporary(e)) {
          throw e;
        }
        Thread.sleep(PAUSE_MILLIS);
      }
    }
  }

  private static void print(WatchResponse message) {
    for (JobLog one : message.getTriesList()) {
      System.out.printf("tried %s, try %d: %s%n", one.getName(), one.getTry(), nameOf(one.getState()));
    }
    for (Request one : message.getRequestsList()) {
      System.out.printf(
          "%s, %d of %d jobs%n", nameOf(one.getState()), one.getFinishedJobs(), one.getTotalJobs());
    }
  }

  /** Prints all tries of all jobs, page by page. */
  private void printLog(String id) {
    GetLogRequest.Builder request = GetLogRequest.newBuilder().setRequestId(id);
    do {
      GetLogResponse page = withDeadline().getLog(request.build());
      for (JobLog entry : page.getEntriesList()) {
        System.out.printf(
            "log %s, try %d: %s, exit %d%n",
            entry.getName(), entry.getTry(), nameOf(entry.getState()), entry.getExit());
        entry.getStdout().lines().forEach(line -> System.out.println("  " + line));
        entry.getStderr().lines().forEach(line -> System.out.println("  " + line));
      }
      request.setPageToken(page.getNextPageToken());
    } while (!request.getPageToken().isEmpty());
  }

  private void printTypes() {
    for (RequestSpec spec : withDeadline().requestList(RequestListRequest.getDefaultInstance()).getSpecsList()) {
      System.err.println("known type: " + spec.getName());
    }
  }

  private RequestManagerBlockingStub withDeadline() {
    return stub.withDeadlineAfter(DEADLINE_SECONDS, TimeUnit.SECONDS);
  }

  private static String nameOf(State state) {
    return state.name().replace("STATE_", "");
  }

  /** Says whether a call that is safe to repeat may succeed later. */
  private static boolean isTemporary(StatusRuntimeException e) {
    if (reasonOf(e).equals("CREDENTIALS_ENDED")) {
      return true; // The token file may have a new token.
    }
    return switch (e.getStatus().getCode()) {
      case UNAVAILABLE, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED -> true;
      default -> false;
    };
  }

  /**
   * Returns the reason of an error, for example "UNKNOWN_REQUEST_TYPE". docs/errors.md lists all reasons. The reason
   * of an error that does not come from the server is its code.
   */
  private static String reasonOf(StatusRuntimeException e) {
    for (Any detail : StatusProto.fromThrowable(e).getDetailsList()) {
      if (detail.is(ErrorInfo.class)) {
        try {
          return detail.unpack(ErrorInfo.class).getReason();
        } catch (InvalidProtocolBufferException malformed) {
          break;
        }
      }
    }
    return e.getStatus().getCode().name();
  }
}

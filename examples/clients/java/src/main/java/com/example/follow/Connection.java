package com.example.follow;

import com.google.gson.Gson;
import io.grpc.CallCredentials;
import io.grpc.ChannelCredentials;
import io.grpc.CompositeChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.TlsChannelCredentials;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.Reader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;

/** Opens a channel to the server that the environment variables name. */
final class Connection {
  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  private Connection() {}

  /**
   * Opens a channel to $SPINC_ADDR. $SPINC_CA, a PEM file, turns on TLS, and $SPINC_TOKEN_FILE has the token of
   * the user. The channel connects with the first call.
   */
  static ManagedChannel open() throws IOException {
    String address = System.getenv().getOrDefault("SPINC_ADDR", "localhost:32318");
    return Grpc.newChannelBuilder(address, credentials())
        .defaultServiceConfig(serviceConfig())
        // Notice within 40 seconds that a server is gone, although the connection is not closed.
        .keepAliveTime(30, TimeUnit.SECONDS)
        .keepAliveTimeout(10, TimeUnit.SECONDS)
        .build();
  }

  /** Returns which calls gRPC repeats, and that it uses all addresses of a name. */
  @SuppressWarnings("unchecked")
  private static Map<String, ?> serviceConfig() throws IOException {
    try (Reader reader =
        new InputStreamReader(
            Connection.class.getResourceAsStream("/service_config.json"), StandardCharsets.UTF_8)) {
      return new Gson().fromJson(reader, Map.class);
    }
  }

  private static ChannelCredentials credentials() throws IOException {
    String ca = System.getenv("SPINC_CA");
    String tokenFile = System.getenv("SPINC_TOKEN_FILE");
    if (ca == null) {
      if (tokenFile != null) {
        throw new IllegalArgumentException("a token needs TLS: set SPINC_CA");
      }
      return InsecureChannelCredentials.create();
    }
    ChannelCredentials tls = TlsChannelCredentials.newBuilder().trustManager(new File(ca)).build();
    return tokenFile == null
        ? tls
        : CompositeChannelCredentials.create(tls, new TokenFile(Path.of(tokenFile)));
  }

  /** Sends the token in a file. The file is read for each call, so the token may change. */
  private static final class TokenFile extends CallCredentials {
    private final Path path;

    TokenFile(Path path) {
      this.path = path;
    }

    @Override
    public void applyRequestMetadata(RequestInfo info, Executor executor, MetadataApplier applier) {
      executor.execute(
          () -> {
            try {
              Metadata headers = new Metadata();
              headers.put(AUTHORIZATION, "Bearer " + Files.readString(path).trim());
              applier.apply(headers);
            } catch (IOException e) {
              applier.fail(Status.UNAUTHENTICATED.withDescription("no token in " + path).withCause(e));
            }
          });
    }
  }
}

import java.util.List;
import java.util.Map;
import org.openapitools.client.ApiClient;
import org.openapitools.client.ApiException;
import org.openapitools.client.api.RequestManagerApi;
import org.openapitools.client.model.CreateRequest;
import org.openapitools.client.model.JobLog;
import org.openapitools.client.model.Request;
import org.openapitools.client.model.State;

/** Calls a server with a client that openapi-generator has made. */
public final class Call {
  public static void main(String[] args) throws Exception {
    RequestManagerApi api = new RequestManagerApi(new ApiClient().setBasePath(args[0]));
    CreateRequest body = new CreateRequest().type("nap").args(Map.of("ms", "1"));
    Request request = api.requestManagerCreate(body).idempotencyKey("java").execute();
    while (request.getState() != State.STATE_COMPLETE) {
      Thread.sleep(50);
      request = api.requestManagerGet(request.getId()).execute();
    }
    List<JobLog> log = api.requestManagerGetLog(request.getId()).execute();
    try {
      api.requestManagerGet("nosuch").execute();
    } catch (ApiException e) {
      System.out.printf("complete %d log %d error %d%n", request.getFinishedJobs(), log.size(), e.getCode());
    }
  }
}

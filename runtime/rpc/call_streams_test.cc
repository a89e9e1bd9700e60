// Both ends of a stream of calls, with gRPC between them.
#include "runtime/rpc/call_streams.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/registry.h>

#include <atomic>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "runtime/async/sync_wait.h"
#include "runtime/async/when_all.h"
#include "runtime/rpc/call_stream_rpc.h"
#include "runtime/rpc/channel.h"
#include "runtime/rpc/rpc_server.h"
#include "runtime/status/error.h"
#include "runtime/status/testing/matchers.h"
#include "runtime/time/system_time.h"
#include "tests/support/ports.h"
#include "tutti/agent/v1/agent_service.pb.h"

namespace tutti {
namespace {

using ::testing::SizeIs;
using tutti::agent::v1::ExecuteRequest;
using tutti::agent::v1::ExecuteResponse;
using ::tutti::testing::HasCode;
using ::tutti::testing::IsOk;

constexpr char kExecute[] = "tutti.agent.v1.AgentExecutionService/Execute";
constexpr size_t kMostBytes = 4 << 20;

// A process's clock, loop and so on.
struct Base {
  SystemClock clock;
  SystemTimers timers;
  Xoshiro rng{Xoshiro::SeedFromSystem()};
  Tracer tracer{"test", clock, rng, nullptr, 0.0};
};

// A process that answers. What is asked for by `agent` is what it does.
class Answerer final {
 public:
  // `by_itself`: whether it also takes calls by themselves.
  Answerer(Base& base, int port, std::string name, bool by_itself)
      : name_(std::move(name)),
        metrics_(registry_),
        methods_(base.timers),
        by_themselves_(base.timers),
        served_(by_themselves_),
        env_{loop_, scope_, base.tracer, metrics_, base.clock},
        streams_(env_, methods_, name_) {
    methods_.Add(env_, kExecute, *this, &Answerer::Handle);
    RpcServer::Options options;
    options.name = name_;
    options.address = absl::StrCat("127.0.0.1:", port);
    options.max_message_bytes = kMostBytes;
    options.methods = &served_;
    streams_.Offer(by_themselves_);
    if (by_itself) by_themselves_.Add(env_, kExecute, *this, &Answerer::HandleAlone);
    auto server = RpcServer::Start(std::move(options), env_, loop_.rpc(), base.timers);
    EXPECT_THAT(server, IsOk());
    server_ = *std::move(server);
  }
  ~Answerer() { Drain(absl::Now()); }

  void Drain(absl::Time deadline) {
    streams_.Drain();
    server_->Shutdown(deadline);
    go_.request_stop();
    scope_.CloseAndWait();
  }
  // Lets those that wait go on.
  void Go() { go_.request_stop(); }
  int alone() const { return alone_; }
  // Until so many calls wait at once, and until so many were given up.
  void AwaitWaiting(int count) { AwaitCount(waiting_, count); }
  void AwaitGivenUp(int count) { AwaitCount(given_up_, count); }

 private:
  Task<absl::Status> HandleAlone(CallContext& call, const ExecuteRequest& request, ExecuteResponse& response) {
    ++alone_;
    absl::Status status = co_await Handle(call, request, response);
    co_return status;
  }
  Task<absl::Status> Handle(CallContext& call, const ExecuteRequest& request, ExecuteResponse& response) {
    if (request.agent() == "fail") {
      co_return Error(absl::StatusCode::kInvalidArgument, "NOT_SO", "it is not so").Metadata("why", "because");
    }
    if (request.agent() == "who") {
      response.mutable_output()->set_data(
          absl::StrCat(call.actor, " ", call.origin, " ", call.call_id, " ", call.trace.TraceIdHex(), " ",
                       call.deadline == absl::InfiniteFuture() ? "forever" : "bounded"));
    } else if (request.agent() == "name") {
      response.mutable_output()->set_data(name_);
    } else if (request.agent() == "much") {
      response.mutable_output()->set_data(std::string(static_cast<size_t>(request.input().data().size()) << 10, 'x'));
    } else if (request.agent() == "wait") {
      OneShot<bool> shot;
      std::stop_callback on_go(go_.get_token(), [&shot] { shot.Set(true); });
      std::stop_callback on_stop(call.stop, [&shot] { shot.Set(false); });
      Count(waiting_, 1);
      const bool go = co_await shot.Wait(loop_);
      Count(waiting_, -1);
      if (!go) Count(given_up_, 1);
      response.mutable_output()->set_data(name_);
    } else {
      response.mutable_output()->set_data(request.input().data());
    }
    co_return absl::OkStatus();
  }
  void Count(int& what, int by) {
    MutexLock lock(mutex_);
    what += by;
    changed_.NotifyAll();
  }
  void AwaitCount(int& what, int count) {
    MutexLock lock(mutex_);
    while (what < count) {
      ASSERT_TRUE(changed_.WaitFor(mutex_, std::chrono::seconds(60)) || what >= count) << what << " of " << count;
    }
  }

  const std::string name_;
  prometheus::Registry registry_;
  RpcMetrics metrics_;
  LocalMethods methods_, by_themselves_;
  ServedMethods served_;
  RpcLoop loop_{"answerer"};
  Scope scope_;
  ServerEnv env_;
  CallStreamRpc streams_;
  std::stop_source go_;
  std::atomic<int> alone_{0};
  Mutex mutex_;
  CondVar changed_;
  int waiting_ = 0, given_up_ = 0;
  std::unique_ptr<RpcServer> server_;
};

class CallStreamsTest : public ::testing::Test {
 protected:
  std::unique_ptr<Answerer> Start(bool by_itself = false, const std::string& name = "one") {
    return std::make_unique<Answerer>(base_, port_, name, by_itself);
  }
  void Connect(const std::string& address) {
    streams_ = std::make_unique<CallStreams>(
        std::vector<CallStreams::Peer>{
            {"tutti.agent.v1", RpcPeer{ConnectTo(address, kMostBytes), &loop_.rpc().queue()}, kMostBytes}},
        loop_, base_.clock, base_.timers, base_.rng, base_.tracer);
    methods_.ReachOthersBy(*streams_);
  }
  void Connect() { Connect(absl::StrCat("127.0.0.1:", port_)); }
  ~CallStreamsTest() override {
    if (streams_) streams_->Stop();
  }

  CallContext NewCall() { return CallContext(loop_, base_.tracer); }
  static ExecuteRequest Ask(const std::string& agent, const std::string& input = "") {
    ExecuteRequest request;
    request.set_agent(agent);
    request.mutable_input()->set_data(input);
    return request;
  }
  Task<absl::Status> CallTo(CallContext& call, ExecuteRequest request, ExecuteResponse& response,
                            absl::Duration timeout) {
    co_await ResumeOn(loop_);
    auto method = methods_.Find<ExecuteRequest, ExecuteResponse>(kExecute);
    absl::Status status = co_await method->Call(call, std::move(request), response, timeout);
    co_return status;
  }
  absl::StatusOr<std::string> Call(ExecuteRequest request, absl::Duration timeout = absl::Seconds(20)) {
    CallContext call = NewCall();
    return Call(call, std::move(request), timeout);
  }
  absl::StatusOr<std::string> Call(CallContext& call, ExecuteRequest request,
                                   absl::Duration timeout = absl::Seconds(20)) {
    ExecuteResponse response;
    absl::Status status = SyncWait(CallTo(call, std::move(request), response, timeout));
    if (!status.ok()) return status;
    return response.output().data();
  }
  // Until a stream is there, before which calls go by themselves, for which the answerer has no ear.
  void AwaitStream() {
    while (absl::IsUnimplemented(Call(Ask("echo")).status())) std::this_thread::yield();
  }
  // A call under way, which ends with this.
  struct Running {
    std::thread thread;
    absl::StatusOr<std::string> answer;
    absl::StatusOr<std::string> Join() {
      thread.join();
      return answer;
    }
  };
  std::unique_ptr<Running> Begin(ExecuteRequest request) {
    auto running = std::make_unique<Running>();
    running->thread = std::thread([this, request, &answer = running->answer] { answer = Call(request); });
    return running;
  }

  Base base_;
  const int port_ = testing::FreePort();
  RpcLoop loop_{"caller"};
  LocalMethods methods_{base_.timers};
  std::unique_ptr<CallStreams> streams_;
};

TEST_F(CallStreamsTest, CarriesUnaryMethodsOfItsPeersOnly) {
  Connect();
  EXPECT_TRUE(streams_->Carries(kExecute));
  EXPECT_FALSE(streams_->Carries("tutti.agent.v1.AgentExecutionService/NoSuchMethod"));
  EXPECT_FALSE(streams_->Carries("tutti.rpc.v1.CallStreamService/Exchange"));
}

TEST_F(CallStreamsTest, WhatComesWithACallGoesAlong) {
  auto one = Start();
  Connect();
  AwaitStream();
  EXPECT_EQ(*Call(Ask("echo", "hello")), "hello");
  EXPECT_EQ(*Call(Ask("echo", "")), "");
  CallContext call = NewCall();
  call.actor = "anna";
  call.origin = "10.0.0.1";
  call.call_id = "c1";
  call.trace = TraceContext{.trace_high = 1, .trace_low = 2, .span = 3, .sampled = true};
  EXPECT_EQ(*Call(call, Ask("who"), absl::InfiniteDuration()),
            absl::StrCat("anna 10.0.0.1 c1 ", call.trace.TraceIdHex(), " forever"));
  call.deadline = absl::Now() + absl::Seconds(20);
  EXPECT_EQ(*Call(call, Ask("who"), absl::InfiniteDuration()),
            absl::StrCat("anna 10.0.0.1 c1 ", call.trace.TraceIdHex(), " bounded"));
  absl::Status failed = Call(Ask("fail")).status();
  EXPECT_THAT(failed, HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(ReasonOf(failed), "NOT_SO");
}

TEST_F(CallStreamsTest, LargeResponsesComeInPartsUpToTheLimit) {
  auto one = Start();
  Connect();
  AwaitStream();
  for (size_t kib : {255, 256, 257, 1000, 4000}) {
    auto much = Call(Ask("much", std::string(kib, ' ')));
    ASSERT_THAT(much, IsOk()) << kib;
    EXPECT_THAT(*much, SizeIs(kib << 10));
  }
  EXPECT_THAT(Call(Ask("much", std::string(5000, ' '))), HasCode(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(*Call(Ask("echo", "still there")), "still there");
}

TEST_F(CallStreamsTest, LargeRequestsGoByThemselves) {
  auto one = Start(/*by_itself=*/true);
  Connect();
  const std::string large(100 << 10, 'x');
  EXPECT_EQ(*Call(Ask("echo", large)), large);
  EXPECT_EQ(one->alone(), 1);
}

TEST_F(CallStreamsTest, ADeadlineAndACancelReachTheCallee) {
  auto one = Start();
  Connect();
  AwaitStream();
  EXPECT_THAT(Call(Ask("wait"), absl::Milliseconds(50)), HasCode(absl::StatusCode::kDeadlineExceeded));
  one->AwaitGivenUp(1);
  std::stop_source stop;
  CallContext call = NewCall();
  call.stop = stop.get_token();
  std::thread canceller([&] {
    one->AwaitWaiting(1);
    stop.request_stop();
  });
  EXPECT_THAT(Call(call, Ask("wait")), HasCode(absl::StatusCode::kCancelled));
  canceller.join();
  one->AwaitGivenUp(2);
  EXPECT_THAT(Call(call, Ask("echo")), HasCode(absl::StatusCode::kCancelled));
}

TEST_F(CallStreamsTest, ManyAtOnceAreEachAnswered) {
  auto one = Start();
  Connect();
  AwaitStream();
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 250; ++i) {
        const std::string text = absl::StrCat(t, "/", i);
        auto answer = Call(Ask("echo", text));
        right += answer.ok() && *answer == text;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(right, 2000);
}

TEST_F(CallStreamsTest, MoreThanAStreamHoldsGoByThemselves) {
  auto one = Start();
  Connect();
  AwaitStream();
  constexpr int kHeld = 1024;
  std::vector<ExecuteResponse> responses(kHeld - 1);
  CallContext call = NewCall();
  std::thread all([&] {
    std::vector<Task<absl::Status>> tasks;
    for (auto& response : responses) tasks.push_back(CallTo(call, Ask("wait"), response, absl::InfiniteDuration()));
    auto together = WhenAll(std::move(tasks));
    for (const absl::Status& status : SyncWait(std::move(together))) EXPECT_THAT(status, IsOk());
  });
  std::stop_source stop;
  CallContext last = NewCall();
  last.stop = stop.get_token();
  std::thread given_up([&] { EXPECT_THAT(Call(last, Ask("wait")), HasCode(absl::StatusCode::kCancelled)); });
  one->AwaitWaiting(kHeld);
  EXPECT_THAT(Call(Ask("echo")), HasCode(absl::StatusCode::kUnimplemented)) << "there is no room on the stream";
  stop.request_stop();
  given_up.join();
  one->AwaitGivenUp(1);
  EXPECT_EQ(*Call(Ask("echo", "room again")), "room again");
  one->Go();
  all.join();
}

TEST_F(CallStreamsTest, WhoDrainsAnswersWhatItHas) {
  auto one = Start();
  Connect();
  AwaitStream();
  auto running = Begin(Ask("wait"));
  one->AwaitWaiting(1);
  std::thread drain([&] { one->Drain(absl::InfiniteFuture()); });
  // From when it drains nothing new goes to it by the stream.
  while (Call(Ask("echo")).ok()) std::this_thread::yield();
  one->Go();
  EXPECT_EQ(*running->Join(), "one");
  drain.join();  // which waits for no deadline
}

TEST_F(CallStreamsTest, WhatAStreamLostGoesAgainByItself) {
  auto one = Start();
  Connect();
  AwaitStream();
  auto running = Begin(Ask("wait"));
  one->AwaitWaiting(1);
  one->Drain(absl::Now());  // at once: the call is cut off
  one.reset();
  auto two = Start(/*by_itself=*/true, "two");
  two->AwaitWaiting(1);
  EXPECT_EQ(two->alone(), 1);
  two->Go();
  EXPECT_EQ(*running->Join(), "two");
  // And there is a stream again: calls by themselves grow no more in number.
  for (int before = -1; before != two->alone();) {
    before = two->alone();
    EXPECT_EQ(*Call(Ask("echo", "back")), "back");
  }
}

TEST_F(CallStreamsTest, NobodyThereIsUnavailable) {
  Connect();
  EXPECT_THAT(Call(Ask("echo"), absl::Seconds(20)), HasCode(absl::StatusCode::kUnavailable));
}

TEST_F(CallStreamsTest, AllProcessesBehindANameAreFoundAndShareTheWork) {
  auto one = Start();
  const int other_port = testing::FreePort();
  Answerer two(base_, other_port, "two", /*by_itself=*/false);
  Connect(absl::StrCat("ipv4:127.0.0.1:", port_, ",127.0.0.1:", other_port));
  AwaitStream();
  // Of several at once each goes to who has the least to do, as soon as both are known.
  for (std::set<std::string> seen; seen.size() < 2;) {
    std::vector<ExecuteResponse> responses(8);
    CallContext call = NewCall();
    std::vector<Task<absl::Status>> tasks;
    for (auto& response : responses) tasks.push_back(CallTo(call, Ask("name"), response, absl::Seconds(20)));
    auto together = WhenAll(std::move(tasks));
    for (const absl::Status& status : SyncWait(std::move(together))) EXPECT_THAT(status, IsOk());
    for (const auto& response : responses) seen.insert(response.output().data());
  }
}

TEST_F(CallStreamsTest, AfterStopCallsEnd) {
  auto one = Start();
  Connect();
  AwaitStream();
  auto running = Begin(Ask("wait"));
  one->AwaitWaiting(1);
  streams_->Stop();
  EXPECT_FALSE(running->Join().ok());
}

}  // namespace
}  // namespace tutti

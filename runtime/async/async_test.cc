#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <thread>

#include "runtime/async/channel.h"
#include "runtime/async/one_shot.h"
#include "runtime/async/scope.h"
#include "runtime/async/semaphore.h"
#include "runtime/async/sleep.h"
#include "runtime/async/sync_wait.h"
#include "runtime/async/testing/manual_executor.h"
#include "runtime/async/when_all.h"
#include "runtime/time/system_time.h"
#include "runtime/time/testing/manual_time.h"

namespace tutti {
namespace {

using testing::ManualExecutor;
using testing::ManualTime;

Task<int> Deep(int depth) {
  if (depth == 0) co_return 0;
  int below = co_await Deep(depth - 1);
  co_return below + 1;
}

TEST(TaskTest, ReturnsThroughAHundredThousandFrames) {
  // Symmetric transfer: completion of a deep chain must not use the stack. Starting it does, so depth is modest there.
  EXPECT_EQ(SyncWait(Deep(1000)), 1000);
}

Task<void> Count(Executor& executor, int rounds, std::atomic<int>& count) {
  for (int i = 0; i < rounds; ++i) {
    co_await ResumeOn(executor);
    ++count;
  }
}

TEST(ScopeTest, WaitsForWhatRunsAndRefusesAfterClose) {
  EventLoop loop("test");
  std::atomic<int> count{0};
  Scope scope;
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(scope.Spawn(loop, Count(loop, 100, count)));
  scope.CloseAndWait();
  EXPECT_EQ(count, 10000);
  EXPECT_FALSE(scope.Spawn(loop, Count(loop, 1, count)));
  EXPECT_EQ(count, 10000);
}

Task<bool> Value(Executor& executor, OneShot<bool>& shot) {
  bool value = co_await shot.Wait(executor);
  co_return value;
}

// Events from other threads, as a library would hand them out.
class FakeSource final : public EventSource {
 public:
  struct Counted final : Event {
    void Happened(bool ok) override { *count += ok; }
    std::atomic<int>* count;
  };
  void Add(Event& event) {
    MutexLock lock(mutex_);
    events_.push_back(&event);
    changed_.NotifyAll();
  }
  Event* Next(bool wait, bool& ok) override {
    MutexLock lock(mutex_);
    while (wait && events_.empty() && !interrupted_) changed_.Wait(mutex_);
    if (events_.empty()) {
      if (wait) interrupted_ = false;
      return nullptr;
    }
    Event* event = events_.front();
    events_.pop_front();
    ok = true;
    return event;
  }
  void Interrupt() override {
    MutexLock lock(mutex_);
    interrupted_ = true;
    changed_.NotifyAll();
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::deque<Event*> events_ ABSL_GUARDED_BY(mutex_);
  bool interrupted_ ABSL_GUARDED_BY(mutex_) = false;
};

TEST(EventLoopTest, RunsWhatIsPostedAndWhatItsSourceHas) {
  for (auto linger : {std::chrono::microseconds(0), std::chrono::microseconds(250)}) {
    constexpr int kEach = 5000, kThreads = 3;
    std::atomic<int> posted{0}, happened{0};
    FakeSource source;
    FakeSource::Counted event;
    event.count = &happened;
    auto loop = std::make_unique<EventLoop>("test", linger, &source);
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < kEach; ++i) loop->Post([&] { ++posted; });
      });
      threads.emplace_back([&] {
        for (int i = 0; i < kEach; ++i) source.Add(event);
      });
    }
    for (auto& thread : threads) thread.join();
    while (happened < kThreads * kEach) std::this_thread::yield();
    // One after the other: each wakes a loop that may sleep.
    for (int i = 0; i < 200; ++i) {
      OneShot<bool> done;
      loop->Post([&done] { done.Set(true); });
      EXPECT_TRUE(SyncWait(Value(*loop, done)));
    }
    loop.reset();
    EXPECT_EQ(posted, kThreads * kEach);
    EXPECT_EQ(happened, kThreads * kEach);
  }
}

Task<void> Await(Executor& executor, OneShot<int>& shot, int& out) {
  int value = co_await shot.Wait(executor);
  out = value;
}

TEST(OneShotTest, DeliversWhetherSetBeforeOrAfterTheWait) {
  ManualExecutor executor;
  for (bool before : {true, false}) {
    OneShot<int> shot;
    int out = 0;
    Scope scope;
    if (before) {
      EXPECT_TRUE(shot.Set(7));
    }
    scope.Spawn(executor, Await(executor, shot, out));
    executor.RunUntilIdle();
    if (!before) {
      EXPECT_EQ(out, 0);
      EXPECT_TRUE(shot.Set(7));
      executor.RunUntilIdle();
    }
    EXPECT_EQ(out, 7);
    EXPECT_FALSE(shot.Set(8)) << "only the first Set wins";
  }
}

TEST(OneShotTest, SurvivesSettersRacingWithTheWaiter) {
  EventLoop loop("test");
  for (int i = 0; i < 2000; ++i) {
    auto shot = std::make_unique<OneShot<int>>();
    int out = 0;
    std::thread setter([raw = shot.get(), i] { raw->Set(i + 1); });
    {
      Scope scope;
      scope.Spawn(loop, Await(loop, *shot, out));
    }
    EXPECT_EQ(out, i + 1);
    setter.join();
  }
}

Task<int> Plus(Executor& executor, int value) {
  co_await ResumeOn(executor);
  co_return value;
}

TEST(WhenAllTest, KeepsTheOrderOfTasks) {
  EventLoop a("a"), b("b");
  std::vector<Task<int>> tasks;
  for (int i = 0; i < 100; ++i) tasks.push_back(Plus(i % 2 ? a : b, i));
  std::vector<int> results = SyncWait(WhenAll(std::move(tasks)));
  for (int i = 0; i < 100; ++i) EXPECT_EQ(results[static_cast<size_t>(i)], i);
}

Task<void> SleepAndTell(ManualTime& time, Executor& executor, std::stop_token stop, int& out) {
  bool elapsed = co_await Sleep(time, executor, absl::Hours(24 * 30), stop);
  out = elapsed ? 1 : 2;
}

TEST(SleepTest, ThirtyDaysPassInNoTime) {
  ManualTime time;
  ManualExecutor executor;
  std::stop_source stop;
  int out = 0;
  Scope scope;
  scope.Spawn(executor, SleepAndTell(time, executor, stop.get_token(), out));
  executor.RunUntilIdle();
  time.Advance(absl::Hours(24 * 30) - absl::Seconds(1));
  executor.RunUntilIdle();
  EXPECT_EQ(out, 0);
  time.Advance(absl::Seconds(1));
  executor.RunUntilIdle();
  EXPECT_EQ(out, 1);
}

TEST(SleepTest, EndsAtOnceWhenStopped) {
  ManualTime time;
  ManualExecutor executor;
  std::stop_source stop;
  int out = 0;
  Scope scope;
  scope.Spawn(executor, SleepAndTell(time, executor, stop.get_token(), out));
  executor.RunUntilIdle();
  stop.request_stop();
  executor.RunUntilIdle();
  EXPECT_EQ(out, 2);
  EXPECT_EQ(time.pending(), 0u) << "the timer is cancelled";
}

Task<void> Drain(Channel<int>& channel, std::vector<int>& out) {
  for (;;) {
    auto value = co_await channel.Pop();
    if (!value) co_return;
    out.push_back(*value);
  }
}

TEST(ChannelTest, RefusesPastItsCapacityAndGivesTheRestAfterClose) {
  ManualExecutor executor;
  Channel<int> channel(executor, 2);
  EXPECT_TRUE(channel.TryPush(1));
  EXPECT_TRUE(channel.TryPush(2));
  EXPECT_FALSE(channel.TryPush(3));
  std::vector<int> out;
  Scope scope;
  scope.Spawn(executor, Drain(channel, out));
  executor.RunUntilIdle();
  EXPECT_TRUE(channel.TryPush(4));
  channel.Close();
  executor.RunUntilIdle();
  EXPECT_EQ(out, (std::vector<int>{1, 2, 4}));
  EXPECT_FALSE(channel.TryPush(5));
}

TEST(ChannelTest, CarriesFromManyThreads) {
  EventLoop loop("test");
  Channel<int> channel(loop, 100000);
  std::vector<int> out;
  Scope scope;
  scope.Spawn(loop, Drain(channel, out));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&channel] {
      for (int i = 0; i < 1000; ++i) channel.TryPush(i);
    });
  }
  for (auto& thread : threads) thread.join();
  channel.Close();
  scope.CloseAndWait();
  EXPECT_EQ(out.size(), 4000u);
}

Task<void> Hold(Semaphore& semaphore, OneShot<bool>& until, Executor& executor, std::vector<bool>& got) {
  bool acquired = co_await semaphore.Acquire();
  got.push_back(acquired);
  if (!acquired) co_return;
  co_await until.Wait(executor);
  semaphore.Release();
}

TEST(SemaphoreTest, HandsOverInOrderAndRefusesWhenTooManyWait) {
  ManualExecutor executor;
  Semaphore semaphore(executor, 1, 1);
  std::vector<bool> got;
  OneShot<bool> first, second, third;
  Scope scope;
  scope.Spawn(executor, Hold(semaphore, first, executor, got));
  scope.Spawn(executor, Hold(semaphore, second, executor, got));
  scope.Spawn(executor, Hold(semaphore, third, executor, got));
  executor.RunUntilIdle();
  EXPECT_EQ(got, (std::vector<bool>{true, false})) << "one holds, one waits, one is refused";
  first.Set(true);
  executor.RunUntilIdle();
  EXPECT_EQ(got.size(), 3u);
  second.Set(true);
  executor.RunUntilIdle();
}

TEST(SystemTimersTest, FiresInOrderAndNotAfterCancel) {
  SystemTimers timers;
  Mutex mutex;
  CondVar changed;
  std::vector<int> fired;
  auto record = [&](int value) {
    return [&, value] {
      MutexLock lock(mutex);
      fired.push_back(value);
      changed.NotifyAll();
    };
  };
  timers.After(absl::Milliseconds(30), record(3));
  uint64_t cancelled = timers.After(absl::Milliseconds(10), record(0));
  timers.After(absl::Milliseconds(20), record(2));
  timers.After(absl::ZeroDuration(), record(1));
  EXPECT_TRUE(timers.Cancel(cancelled));
  EXPECT_FALSE(timers.Cancel(cancelled));
  MutexLock lock(mutex);
  while (fired.size() < 3) changed.Wait(mutex);
  EXPECT_EQ(fired, (std::vector<int>{1, 2, 3}));
}

}  // namespace
}  // namespace tutti

// Who waits for news of what. News carry no data: a watcher that is woken reads the store from where it stood, so a
// slow watcher costs nothing and misses nothing. (What agents say is in no store: of that a slow watcher misses some.)
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime/async/channel.h"
#include "services/state-manager/ports/database.h"

namespace tutti::state_manager {

// A wake-up that is remembered until it is taken; many become one.
class WakeUp {
 public:
  explicit WakeUp(Executor& executor) : channel_(executor, 1) {}
  void Notify() {
    noticed_ = true;
    channel_.TryPush(true);
  }
  // Whether Notify was called since this was last asked.
  bool TakeNotice() { return noticed_.exchange(false); }
  void Close() { channel_.Close(); }
  // From now on texts are kept until they are taken, as many as there is room for.
  void WantTexts() {
    MutexLock lock(mutex_);
    wants_texts_ = true;
  }
  void Tell(const std::string& text) {
    {
      MutexLock lock(mutex_);
      if (!wants_texts_ || texts_.size() >= kMostTexts) return;
      texts_.push_back(text);
    }
    channel_.TryPush(true);
  }
  std::vector<std::string> TakeTexts() {
    MutexLock lock(mutex_);
    return std::exchange(texts_, {});
  }
  // nullopt: closed.
  Channel<bool>::Awaiter Wait() { return channel_.Pop(); }

 private:
  static constexpr size_t kMostTexts = 256;
  Channel<bool> channel_;
  std::atomic<bool> noticed_{false};
  Mutex mutex_;
  bool wants_texts_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::string> texts_ ABSL_GUARDED_BY(mutex_);
};

// What one engine instance is told.
struct InstanceNews {
  bool runs_claimable = false;
  std::string cancel_run_id;
  std::string inbox_run_id;  // something has arrived for it
  std::string ended_run_id;  // it is nobody's any more
};

class WatchHub final : public NewsListener {
 public:
  static constexpr size_t kMaxWatchersEach = 1000;
  static constexpr size_t kMaxNews = 10000;

  // Null: the run or context has too many watchers. Ends when the pointer goes.
  std::shared_ptr<WakeUp> Watch(News::Kind kind, const std::string& id, Executor& executor);
  std::shared_ptr<Channel<InstanceNews>> WatchInstance(const std::string& instance, Executor& executor);

  void OnNews(const std::vector<News>& news) override;
  // Everybody looks again. Also called now and then, in case news between replicas were lost.
  void OnNewsLost() override;

 private:
  using Watchers = std::vector<std::weak_ptr<WakeUp>>;

  static std::string KeyOf(News::Kind kind, const std::string& id) {
    return (kind == News::Kind::kRun ? "r" : kind == News::Kind::kContext ? "d" : "o") + id;
  }
  std::vector<std::shared_ptr<WakeUp>> WatchersOf(News::Kind kind, const std::string& id);
  void TellClaimable();
  void Tell(const std::string& instance, InstanceNews news);

  Mutex mutex_;
  std::unordered_map<std::string, Watchers> watchers_ ABSL_GUARDED_BY(mutex_);
  size_t sweep_at_ ABSL_GUARDED_BY(mutex_) = 1024;
  std::map<std::string, std::weak_ptr<Channel<InstanceNews>>> instances_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tutti::state_manager

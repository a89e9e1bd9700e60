#include "services/state-manager/domain/watch_hub.h"

#include <algorithm>

namespace tutti::state_manager {

std::shared_ptr<WakeUp> WatchHub::Watch(News::Kind kind, const std::string& id, Executor& executor) {
  auto wake_up = std::make_shared<WakeUp>(executor);
  MutexLock lock(mutex_);
  if (watchers_.size() >= sweep_at_) {  // what nobody watches any more
    std::erase_if(watchers_, [](const auto& entry) {
      return std::all_of(entry.second.begin(), entry.second.end(),
                         [](const auto& watcher) { return watcher.expired(); });
    });
    sweep_at_ = std::max<size_t>(1024, 2 * watchers_.size());
  }
  auto& watchers = watchers_[KeyOf(kind, id)];
  std::erase_if(watchers, [](const auto& watcher) { return watcher.expired(); });
  if (watchers.size() >= kMaxWatchersEach) return nullptr;
  watchers.push_back(wake_up);
  return wake_up;
}

std::shared_ptr<Channel<InstanceNews>> WatchHub::WatchInstance(const std::string& instance, Executor& executor) {
  auto channel = std::make_shared<Channel<InstanceNews>>(executor, kMaxNews);
  MutexLock lock(mutex_);
  std::erase_if(instances_, [](const auto& entry) { return entry.second.expired(); });
  if (auto old = instances_[instance].lock()) old->Close();
  instances_[instance] = channel;
  return channel;
}

void WatchHub::OnNews(const std::vector<News>& news) {
  bool claimable = false;
  for (const News& item : news) {
    switch (item.kind) {
      case News::Kind::kRun:
      case News::Kind::kContext:
      case News::Kind::kOutbox:
        for (auto& wake_up : WatchersOf(item.kind, item.id)) wake_up->Notify();
        break;
      case News::Kind::kText:
        for (auto& wake_up : WatchersOf(News::Kind::kRun, item.id)) wake_up->Tell(item.text);
        break;
      case News::Kind::kClaimable:
        claimable = true;
        break;
      case News::Kind::kCancel:
        Tell(item.instance, {.cancel_run_id = item.id});
        break;
      case News::Kind::kInbox:
        Tell(item.instance, {.inbox_run_id = item.id});
        break;
      case News::Kind::kEnded:
        Tell(item.instance, {.ended_run_id = item.id});
        break;
    }
  }
  if (claimable) TellClaimable();
}

void WatchHub::OnNewsLost() {
  std::vector<std::shared_ptr<WakeUp>> live;
  {
    MutexLock lock(mutex_);
    for (auto& [key, watchers] : watchers_) {
      for (const auto& watcher : watchers) {
        if (auto wake_up = watcher.lock()) live.push_back(std::move(wake_up));
      }
    }
  }
  for (auto& wake_up : live) wake_up->Notify();
  TellClaimable();
}

std::vector<std::shared_ptr<WakeUp>> WatchHub::WatchersOf(News::Kind kind, const std::string& id) {
  std::vector<std::shared_ptr<WakeUp>> live;
  MutexLock lock(mutex_);
  auto it = watchers_.find(KeyOf(kind, id));
  if (it == watchers_.end()) return live;
  for (const auto& watcher : it->second) {
    if (auto wake_up = watcher.lock()) live.push_back(std::move(wake_up));
  }
  if (live.empty()) watchers_.erase(it);
  return live;
}

void WatchHub::TellClaimable() {
  std::vector<std::shared_ptr<Channel<InstanceNews>>> live;
  {
    MutexLock lock(mutex_);
    for (auto& [name, watcher] : instances_) {
      if (auto channel = watcher.lock()) live.push_back(std::move(channel));
    }
  }
  for (auto& channel : live) channel->TryPush({.runs_claimable = true});
}

void WatchHub::Tell(const std::string& instance, InstanceNews news) {
  std::shared_ptr<Channel<InstanceNews>> channel;
  {
    MutexLock lock(mutex_);
    if (auto it = instances_.find(instance); it != instances_.end()) channel = it->second.lock();
  }
  if (channel) channel->TryPush(std::move(news));
}

}  // namespace tutti::state_manager

// News across the replicas of a state-manager, by LISTEN and NOTIFY on a connection of their own.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "runtime/sync/mutex.h"
#include "services/state-manager/ports/database.h"

namespace tutti::state_manager {

// One line each: what Parse reads back. Ids have no line feeds or tabs.
std::string FormatNews(const News& news);
// False: not news of this version.
bool ParseNews(absl::string_view line, News* out);

// Sends what this replica committed, and hears what the others did. Outside of the writers' transactions: a NOTIFY
// inside would make PostgreSQL commit them one after the other. What is lost with the connection is made good by
// OnNewsLost, and by the slow poll of those who wait. Sends nothing while no other replica listens.
class PostgresNews {
 public:
  PostgresNews(std::string dsn, NewsListener& listener);
  ~PostgresNews();
  void Send(const std::vector<News>& news);

 private:
  struct Link;
  void Run();
  // One connection's life.
  void Serve(Link& link);
  void Hear(absl::string_view payload);
  bool WaitForWork(int socket);

  const std::string dsn_;
  NewsListener& listener_;
  const std::string self_;  // tells own messages from others'
  int wake_ = -1;           // eventfd
  std::atomic<int> socket_{-1};
  Mutex mutex_;
  std::vector<News> outgoing_ ABSL_GUARDED_BY(mutex_);
  bool overflow_ ABSL_GUARDED_BY(mutex_) = false;
  bool peers_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace tutti::state_manager

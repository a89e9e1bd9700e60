#include "tests/simulation/disk.h"

#include <algorithm>
#include <cstdlib>
#include <iostream>

#include "runtime/status/error.h"
#include "services/state-manager/adapters/group_commit.h"
#include "services/state-manager/adapters/migrator.h"

namespace tutti::simulation {

using state_manager::Away;
using state_manager::News;
using state_manager::ReadOp;
using state_manager::WriteOp;

namespace {
constexpr absl::Duration kSlowestCommit = absl::Milliseconds(20);
constexpr absl::Duration kSlowestNews = absl::Milliseconds(50);

void Must(const absl::Status& status) {
  if (status.ok()) return;
  std::cerr << "the simulated database does not open: " << status << "\n";
  std::abort();
}
}  // namespace

// As one process sees it.
class Disk::Front final : public state_manager::Database {
 public:
  Front(Disk& disk, Process& process, state_manager::NewsListener& listener)
      : disk_(disk), process_(process), listener_(listener) {
    disk_.fronts_.push_back(this);
  }
  ~Front() override {
    *here_ = false;
    Drop();
    disk_.fronts_.erase(std::find(disk_.fronts_.begin(), disk_.fronts_.end(), this));
  }

  state_manager::Dialect dialect() const override { return state_manager::Dialect::kSqlite; }
  void Write(WriteOp op) override {
    if (!process_.alive()) return op.finish(Away("this process is no more"));
    queue_.push_back(std::move(op));
    if (disk_.starting_) return Commit();
    if (std::exchange(coming_, true)) return;
    disk_.world_.After(disk_.world_.Delay(kSlowestCommit), [this, here = here_] {
      if (!*here) return;
      coming_ = false;
      Commit();
    });
  }
  // A connection of its own, to which nothing is committed in between.
  void Read(ReadOp op) override {
    WriteOp write;
    write.apply = std::move(op.query);
    write.finish = [finish = std::move(op.finish)](const absl::Status& status) mutable {
      finish(absl::IsUnknown(status) ? Away("the connection was lost") : status);  // nothing was to be committed
    };
    Write(std::move(write));
  }
  void Announce(std::vector<News> news) override {
    if (!process_.alive()) return;
    listener_.OnNews(news);
    for (Front* other : disk_.fronts_) {
      if (other == this || disk_.world_.Chance(disk_.news_lost)) continue;
      disk_.world_.After(disk_.world_.Delay(kSlowestNews), [other, here = other->here_, news] {
        if (*here && other->process_.alive()) other->listener_.OnNews(news);
      });
    }
  }
  void Drop() {
    for (WriteOp& op : std::exchange(queue_, {})) op.finish(Away("this process is no more"));
  }
  Process& process() { return process_; }

 private:
  void Commit() {
    std::vector<WriteOp> batch = std::exchange(queue_, {});
    if (disk_.away && !disk_.starting_) {
      for (WriteOp& op : batch) op.finish(Away("the disk is away"));
      return;
    }
    if (!disk_.starting_ && disk_.world_.Chance(disk_.unanswered)) {
      for (WriteOp& op : batch) {
        op.finish = [finish = std::move(op.finish)](const absl::Status& status) mutable {
          finish(status.ok() ? Error(absl::StatusCode::kUnknown, "COMMIT_UNKNOWN", "the connection was lost") : status);
        };
      }
    }
    disk_.writer_->Commit(batch);
    if (!disk_.committed_.empty()) Announce(std::exchange(disk_.committed_, {}));
  }

  Disk& disk_;
  Process& process_;
  state_manager::NewsListener& listener_;
  std::shared_ptr<bool> here_ = std::make_shared<bool>(true);
  std::vector<WriteOp> queue_;
  bool coming_ = false;
};

Disk::Disk(World& world) : world_(world) {
  auto db = state_manager::SqliteDb::Open(":memory:", state_manager::SqliteDb::Mode::kMemory,
                                          [this] { return absl::ToUnixMicros(world_.now()); });
  Must(db.status());
  db_ = *std::move(db);
  Must(state_manager::MigrateSqlite(*db_, state_manager::MigrationTarget()));
  writer_ = std::make_unique<state_manager::SqliteWriter>(*db_, metrics_, [this](std::vector<News> news) {
    committed_.insert(committed_.end(), std::make_move_iterator(news.begin()), std::make_move_iterator(news.end()));
  });
}

absl::StatusOr<state_manager::OpenedDatabase> Disk::Open(Process& process, state_manager::NewsListener& listener) {
  state_manager::OpenedDatabase out;
  out.database = std::make_unique<Front>(*this, process, listener);
  out.metrics = &metrics_;
  out.description = "simulated";
  return out;
}

void Disk::Drop(Process& process) {
  for (Front* front : fronts_) {
    if (&front->process() == &process) front->Drop();
  }
}

}  // namespace tutti::simulation

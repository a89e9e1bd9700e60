// What PostgreSQL's adapter does when things go wrong, against a real server that the test starts, stops, freezes,
// fills and cuts off.
#include <signal.h>

#include <condition_variable>
#include <thread>

#include "absl/strings/str_replace.h"
#include "services/state-manager/adapters/postgres_news.h"
#include "services/state-manager/store/testing/store_fixture.h"
#include "tests/support/losing_proxy.h"
#include "tests/support/ports.h"

namespace tutti::state_manager::testing {
namespace {

using tutti::testing::FreePort;
using tutti::testing::PostgresServer;
using tutti::testing::SharedPostgres;

// Hears news, and waits for them.
class Ear final : public NewsListener {
 public:
  void OnNews(const std::vector<News>& news) override {
    std::lock_guard<std::mutex> lock(mutex_);
    heard_.insert(heard_.end(), news.begin(), news.end());
    changed_.notify_all();
  }
  void OnNewsLost() override {
    std::lock_guard<std::mutex> lock(mutex_);
    ++lost_;
    changed_.notify_all();
  }
  bool Hears(const News& wanted, std::chrono::milliseconds patience = std::chrono::seconds(20)) {
    return Wait([&] { return std::find(heard_.begin(), heard_.end(), wanted) != heard_.end(); }, patience);
  }
  bool HearsOfLoss() {
    return Wait([&] { return lost_ > 0; }, std::chrono::seconds(20));
  }

 private:
  template <class Condition>
  bool Wait(Condition condition, std::chrono::milliseconds patience) {
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_for(lock, patience, condition);
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<News> heard_;
  int lost_ = 0;
};

class PostgresTest : public StoreFixture {
 protected:
  // A server of the test's own, with what it is going to suffer.
  void OwnServer(const std::vector<std::string>& settings = {}) {
    database_.reset();
    auto started = PostgresServer::Start(settings);
    ASSERT_THAT(started, IsOk());
    own_ = *std::move(started);
    dsn_ = own_->Dsn(*own_->NewDatabase());
    Reopen();
  }
  void Adjust(PostgresOptions& options) override {
    options.statement_timeout = absl::Seconds(2);
    options.pool_wait = absl::Milliseconds(300);
    options.connect_timeout = absl::Seconds(2);
    options.pool_size = pool_size_;
    options.replica_dsn = replica_dsn_;
    options.prepared_statements = prepared_;
    options.listen_dsn = listen_dsn_;
  }
  // Waits for a server that another program brings up.
  static bool Accepting(int port) {
    auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!tutti::testing::Accepts(port)) {
      if (std::chrono::steady_clock::now() > until) return false;
      std::this_thread::yield();
    }
    return true;
  }
  // A replica that has just begun is heard of within a moment: until then nothing is sent to it.
  bool Listens(Ear& ear, Database& other) {
    for (int i = 0; i < 100; ++i) {
      (void)Transact<int>(
          [](Transaction& tx, int&) {
            tx.Announce({News::Kind::kClaimable, "", ""});
            return absl::OkStatus();
          },
          &other);
      if (ear.Hears({News::Kind::kClaimable, "", ""}, std::chrono::milliseconds(200))) return true;
    }
    return false;
  }
  DatabaseMetrics& Metrics() { return static_cast<PostgresDatabase&>(*database_).metrics(); }

  // Writers that append until told to stop, and repeat what was not acknowledged, as an engine does.
  struct Load {
    std::vector<std::thread> threads;
    std::vector<int64_t> acknowledged;
    std::atomic<bool> stop{false};
    std::atomic<int64_t> total{0}, away{0}, other{0};
    std::string odd;
    std::mutex mutex;
    std::condition_variable progress;
    ~Load() {
      stop = true;
      for (auto& thread : threads) {
        if (thread.joinable()) thread.join();
      }
    }
  };
  void StartLoad(Load& load, int writers) {
    auto engine = Register("e", "1");
    load.acknowledged.resize(static_cast<size_t>(writers));
    for (int w = 0; w < writers; ++w) ASSERT_THAT(Create(absl::StrCat("run", w), &engine), IsOk());
    for (int w = 0; w < writers; ++w) {
      load.threads.emplace_back([this, &load, w] {
        auto& mine = load.acknowledged[static_cast<size_t>(w)];
        while (!load.stop) {
          absl::Status status = Append(absl::StrCat("run", w), 1, mine + 1);
          if (status.ok()) {
            ++mine;
            {
              std::lock_guard<std::mutex> lock(load.mutex);
              ++load.total;
            }
            load.progress.notify_all();
          } else if (absl::IsUnavailable(status)) {
            ++load.away;
            if (RetryDelayOf(status) <= absl::ZeroDuration()) Odd(load, status);
            std::this_thread::yield();
          } else {
            Odd(load, status);
          }
        }
      });
    }
  }
  static void Odd(Load& load, const absl::Status& status) {
    std::lock_guard<std::mutex> lock(load.mutex);
    ++load.other;
    load.odd = status.ToString();
  }
  // Waits until that much more was acknowledged.
  static bool More(Load& load, int64_t more) {
    std::unique_lock<std::mutex> lock(load.mutex);
    int64_t target = load.total + more;
    return load.progress.wait_for(lock, std::chrono::seconds(60), [&] { return load.total >= target; });
  }
  void EndLoad(Load& load) {
    load.stop = true;
    for (auto& thread : load.threads) thread.join();
    EXPECT_EQ(load.other, 0) << load.odd;
    for (size_t w = 0; w < load.acknowledged.size(); ++w) {
      auto journal = JournalOf(absl::StrCat("run", w));
      // What was on its way when the load ended may be there too; what was acknowledged is, and once.
      ASSERT_GE(journal.size(), static_cast<size_t>(load.acknowledged[w]));
      ASSERT_LE(journal.size(), static_cast<size_t>(load.acknowledged[w]) + 1);
      for (size_t i = 0; i < journal.size(); ++i) {
        ASSERT_EQ(journal[i].seq(), static_cast<int64_t>(i + 1));
        ASSERT_EQ(journal[i].step_completed().path(), absl::StrCat("s", i + 1));
      }
    }
  }

  std::unique_ptr<PostgresServer> own_;
  int pool_size_ = 6;
  std::string replica_dsn_, listen_dsn_;
  bool prepared_ = true;
};
INSTANTIATE_TEST_SUITE_P(Store, PostgresTest, ::testing::Values(Engine::kPostgres), EngineName);

TEST_P(PostgresTest, AStatementThatTakesTooLongIsNoOutage) {
  auto slow = Query<int>([](Transaction& tx, int&) {
    Statement sleep = tx.Prepare("SELECT 1 FROM pg_sleep(5)");
    (void)sleep.Step();
    return sleep.status();
  });
  EXPECT_THAT(slow, HasCodeAndText(absl::StatusCode::kUnavailable, "took too long"));
  EXPECT_EQ(ReasonOf(slow.status()), "STATEMENT_ENDED");
  EXPECT_GT(Metrics().pool_open.load(), 0) << "the connection is as good as before";
}

TEST_P(PostgresTest, SeveralMigrateAtOnce) {
  auto name = SharedPostgres()->NewDatabase();
  PostgresOptions options;
  options.dsn = SharedPostgres()->Dsn(*name);
  std::atomic<size_t> applied{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&] {
      MigrationTarget target;
      target.report = [&](const Migration&) { ++applied; };
      EXPECT_THAT(MigratePostgres(options, target), IsOk());
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(applied, Migrations().size()) << "each once";
  ASSERT_THAT(SharedPostgres()->Sql(*name, "INSERT INTO schema_migrations VALUES (999, 'later')"), IsOk());
  EXPECT_THAT(MigratePostgres(options, {}),
              HasCodeAndText(absl::StatusCode::kFailedPrecondition, "use the newer program"));
  ASSERT_THAT(SharedPostgres()->Sql(*name, "DELETE FROM schema_migrations WHERE version = 999"), IsOk());
  MigrationTarget target;
  target.version = 3;
  EXPECT_THAT(MigratePostgres(options, target),
              HasCodeAndText(absl::StatusCode::kFailedPrecondition, "there is no way back"));
  target.version = 99;
  EXPECT_THAT(MigratePostgres(options, target),
              HasCodeAndText(absl::StatusCode::kInvalidArgument, "no schema version 99"));
}

TEST_P(PostgresTest, AWrongAddressOrDatabaseIsAClearError) {
  WatchHub hub;
  PostgresOptions options;
  options.dsn = absl::StrCat("host=127.0.0.1 user=postgres dbname=x port=", FreePort());
  EXPECT_THAT(PostgresDatabase::Open(options, hub),
              HasCodeAndText(absl::StatusCode::kUnavailable, "cannot be reached"));
  options.dsn = "nonsense";
  EXPECT_THAT(PostgresDatabase::Open(options, hub),
              HasCodeAndText(absl::StatusCode::kInvalidArgument, "no connection string"));
  options.dsn = SharedPostgres()->Dsn("no_such_database");
  EXPECT_THAT(PostgresDatabase::Open(options, hub),
              HasCodeAndText(absl::StatusCode::kFailedPrecondition, "--state-manager.postgres.dsn"));
}

TEST_P(PostgresTest, NewsReachOtherReplicas) {
  Ear here, there;
  auto one = OpenDatabase(here), two = OpenDatabase(there);
  auto engine = Register("e", "1");
  ASSERT_TRUE(Listens(there, *one));
  v1::CreateRunRequest create;
  create.mutable_run()->set_run_id("r1");
  *create.mutable_owner() = engine;
  ASSERT_THAT(Write(store_->runs, &Runs::CreateRun, create, one.get()), IsOk());
  ASSERT_THAT(Append(Entries("r1", 1, 1), nullptr, one.get()), IsOk());
  EXPECT_TRUE(here.Hears({News::Kind::kRun, "r1", ""}));
  EXPECT_TRUE(there.Hears({News::Kind::kRun, "r1", ""}));
  v1::RequestCancelRequest cancel;
  cancel.set_run_id("r1");
  ASSERT_THAT(Write(store_->control, &RunControl::RequestCancel, cancel, two.get()), IsOk());
  EXPECT_TRUE(here.Hears({News::Kind::kCancel, "r1", "e"}));
  News said{News::Kind::kText, "r1", "", std::string(5000, '\n')};
  two->Announce({said});
  EXPECT_TRUE(there.Hears(said));
  EXPECT_TRUE(here.Hears(said)) << "what is said needs no commit";
}

TEST_P(PostgresTest, NewsParseAsTheyWereWritten) {
  for (const News& news : {News{News::Kind::kRun, "r 1", ""}, News{News::Kind::kClaimable, "", ""},
                           News{News::Kind::kCancel, "r1", "engine-1"}, News{News::Kind::kContext, "c", ""},
                           News{News::Kind::kText, "r1", "", std::string("\0\n\t\xff any bytes", 14)}}) {
    News back;
    ASSERT_TRUE(ParseNews(FormatNews(news), &back));
    EXPECT_EQ(back, news);
  }
  News ignored;
  EXPECT_FALSE(ParseNews("", &ignored));
  EXPECT_FALSE(ParseNews("?what", &ignored));
}

TEST_P(PostgresTest, AServerThatIsKilledAndStartedAgainLosesNothingAcknowledged) {
  ASSERT_NO_FATAL_FAILURE(OwnServer());
  Ear ear;
  auto other = OpenDatabase(ear);
  Load load;
  StartLoad(load, 8);
  ASSERT_TRUE(More(load, 200));
  for (int i = 0; i < 2; ++i) {
    ASSERT_THAT(own_->Stop("immediate"), IsOk());
    EXPECT_THAT(Append("run0", 1, 1), HasCodeAndText(absl::StatusCode::kUnavailable, "cannot be reached"));
    ASSERT_THAT(own_->StartAgain(), IsOk());
    ASSERT_TRUE(More(load, 200)) << "goes on by itself";
  }
  EXPECT_GT(load.away, 0);
  EndLoad(load);
  EXPECT_TRUE(ear.HearsOfLoss()) << "watchers look again";
}

TEST_P(PostgresTest, ConnectionsCutInTheMiddleOfTransactionsLoseNothing) {
  ASSERT_NO_FATAL_FAILURE(OwnServer());
  Load load;
  StartLoad(load, 8);
  for (int i = 0; i < 15; ++i) {
    ASSERT_TRUE(More(load, 30));
    ASSERT_THAT(
        own_->Sql("postgres",
                  "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'tutti%'"),
        IsOk());
  }
  ASSERT_TRUE(More(load, 100));
  EndLoad(load);
}

TEST_P(PostgresTest, ACommitWhoseAnswerIsLostIsNotToldAsOneThatDidNotHappen) {
  ASSERT_NO_FATAL_FAILURE(OwnServer());
  tutti::testing::LosingProxy proxy(own_->port());
  dsn_ = absl::StrReplaceAll(
      dsn_, {{absl::StrCat("port=", own_->port()), absl::StrCat("port=", proxy.port(), " sslmode=disable")}});
  Reopen();
  auto create = [this](const std::string& run_id) {
    v1::CreateRunRequest request;
    request.mutable_run()->set_run_id(run_id);
    request.mutable_run()->set_workflow("w");
    request.mutable_run()->mutable_input()->set_data("{}");
    std::promise<absl::Status> done;
    store_->journal.Create(*database_, std::move(request),
                           [&done](absl::StatusOr<v1::CreateRunResponse> answer) { done.set_value(answer.status()); });
    return done.get_future().get();
  };
  ASSERT_THAT(create("before"), IsOk());
  // A statement that is a transaction of its own, and one with a COMMIT behind it.
  proxy.LoseAnswerTo("alone");
  const absl::Status alone = create("alone");
  EXPECT_THAT(alone, HasCodeAndText(absl::StatusCode::kUnknown, "it is not known what was written"));
  EXPECT_EQ(ReasonOf(alone), "COMMIT_UNKNOWN");
  proxy.LoseAnswerTo("COMMIT");
  EXPECT_EQ(ReasonOf(Create("with_others").status()), "COMMIT_UNKNOWN");
  EXPECT_EQ(proxy.lost(), 2);
  // A statement whose answer is lost before the commit has changed nothing.
  proxy.LoseAnswerTo("never");
  EXPECT_THAT(Create("never"), HasCode(absl::StatusCode::kUnavailable));
  EXPECT_EQ(Number("SELECT count(*) FROM runs"), 3);
}

TEST_P(PostgresTest, AFrozenServerIsAnsweredInTimeAndGoesOn) {
  ASSERT_NO_FATAL_FAILURE(OwnServer());
  Load load;
  StartLoad(load, 4);
  ASSERT_TRUE(More(load, 50));
  own_->Signal(SIGSTOP);
  auto begin = std::chrono::steady_clock::now();
  absl::Status status = Append("run0", 1, 1);
  EXPECT_THAT(status, HasCode(absl::StatusCode::kUnavailable));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(15));
  own_->Signal(SIGCONT);
  ASSERT_TRUE(More(load, 100));
  EndLoad(load);
}

TEST_P(PostgresTest, APoolThatIsExhaustedSaysSo) {
  pool_size_ = 2;
  Reopen();
  std::promise<void> let_go;
  std::shared_future<void> gate = let_go.get_future().share();
  std::vector<std::thread> holders;
  std::atomic<int> inside{0};
  // Both connections are held: one by a read, one by a write.
  holders.emplace_back([&] {
    (void)Query<int>([&](Transaction& tx, int&) {
      ++inside;
      gate.wait();
      return tx.Prepare("SELECT 1").Run();
    });
  });
  holders.emplace_back([&] {
    (void)Transact<int>([&](Transaction& tx, int&) {
      ++inside;
      gate.wait();
      return tx.Prepare("SELECT 1").Run();
    });
  });
  while (inside < 2) std::this_thread::yield();
  PostgresOptions options;
  options.dsn = dsn_;
  Adjust(options);
  DatabaseMetrics metrics;
  PostgresPool pool(dsn_, 1, options, metrics);
  auto held = pool.Acquire();
  ASSERT_THAT(held, IsOk());
  auto none = pool.Acquire();
  EXPECT_THAT(none, HasCodeAndText(absl::StatusCode::kResourceExhausted, "--state-manager.postgres.pool-size"));
  EXPECT_GT(RetryDelayOf(none.status()), absl::ZeroDuration());
  EXPECT_EQ(metrics.pool_timeouts, 1);
  EXPECT_EQ(metrics.pool_in_use, 1);
  EXPECT_GE(metrics.pool_wait_micros, 200000);
  EXPECT_EQ(Metrics().pool_in_use, 2);
  EXPECT_EQ(Metrics().pool_size, 2);
  let_go.set_value();
  for (auto& holder : holders) holder.join();
}

TEST_P(PostgresTest, AFullDiskIsToldAndWorkGoesOnWhenThereIsRoom) {
  std::string disk = dir_ + "_disk";
  std::filesystem::create_directories(disk);
  if (system(absl::StrCat("mount -t tmpfs -o size=24m,mode=0777 tmpfs '", disk, "' 2>/dev/null").c_str()) != 0) {
    GTEST_SKIP() << "may not mount here";
  }
  {
    ASSERT_NO_FATAL_FAILURE(OwnServer());
    // Only the tables lie on the small disk: a server whose WAL has no room stops altogether, and comes back by a
    // restart.
    std::string space = disk + "/space";
    ASSERT_EQ(
        system(absl::StrCat("mkdir '", space, "' && chown postgres '", space, "' && chmod 0700 '", space, "'").c_str()),
        0);
    ASSERT_THAT(own_->Sql("postgres", absl::StrCat("CREATE TABLESPACE small LOCATION '", space, "'")), IsOk());
    ASSERT_THAT(own_->Sql(dsn_.substr(dsn_.rfind('=') + 1), "ALTER TABLE journal SET TABLESPACE small"), IsOk());
    auto engine = Register("e", "1");
    ASSERT_THAT(Create("r1", &engine), IsOk());
    int64_t acknowledged = 0;
    absl::Status status;
    while (acknowledged < 1000000) {
      status = Append("r1", 1, acknowledged + 1, 500);
      if (!status.ok()) break;
      acknowledged += 500;
    }
    EXPECT_THAT(status, HasCodeAndText(absl::StatusCode::kUnavailable, "no room"));
    EXPECT_EQ(JournalOf("r1").size(), static_cast<size_t>(acknowledged));
    ASSERT_EQ(system(absl::StrCat("mount -o remount,size=64m '", disk, "'").c_str()), 0);
    EXPECT_THAT(Append("r1", 1, acknowledged + 1, 500), IsOk());
    database_.reset();
    own_.reset();
  }
  (void)!system(absl::StrCat("umount '", disk, "'").c_str());
  std::filesystem::remove_all(disk);
}

TEST_P(PostgresTest, ReadsThatMayLagGoToAReplicaAndComeBackWithoutOne) {
  ASSERT_NO_FATAL_FAILURE(OwnServer());
  auto standby = own_->StartStandby();
  ASSERT_THAT(standby, IsOk());
  std::string name = dsn_.substr(dsn_.rfind('=') + 1);
  replica_dsn_ = (*standby)->Dsn(name);
  Reopen();
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());
  auto asked = [&](bool stale) {
    std::promise<std::string> answer;
    ReadOp op;
    op.allow_stale = stale;
    auto where = std::make_shared<std::string>();
    op.query = [where](Transaction& tx) {
      Statement row = tx.Prepare("SELECT pg_is_in_recovery(), (SELECT count(*) FROM runs)");
      if (row.Step()) *where = absl::StrCat(row.Text(0), row.Text(1));
      return row.status();
    };
    op.finish = [&answer, where](const absl::Status& status) {
      answer.set_value(status.ok() ? *where : status.ToString());
    };
    database_->Read(std::move(op));
    return answer.get_future().get();
  };
  EXPECT_EQ(asked(false), "f1") << "the primary";
  std::string seen;
  for (int i = 0; i < 1000 && seen != "t1"; ++i) {
    seen = asked(true);
    EXPECT_EQ(seen[0], 't') << seen;
    std::this_thread::yield();
  }
  EXPECT_EQ(seen, "t1") << "the replica catches up";
  ASSERT_THAT((*standby)->Stop("immediate"), IsOk());
  EXPECT_EQ(asked(true), "f1") << "without its replica the primary answers";
}

TEST_P(PostgresTest, WorksThroughPgbouncerInTransactionMode) {
  if (!std::filesystem::exists("/usr/sbin/pgbouncer")) GTEST_SKIP() << "pgbouncer is not installed";
  ASSERT_NO_FATAL_FAILURE(OwnServer());
  int port = FreePort();
  std::string ini = own_->dir() + "/pgbouncer.ini";
  std::ofstream(own_->dir() + "/users.txt") << "\"postgres\" \"\"\n";
  std::ofstream(ini) << "[databases]\n* = host=127.0.0.1 port=" << own_->port()
                     << "\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = " << port
                     << "\nauth_type = any\nauth_file = " << own_->dir()
                     << "/users.txt\npool_mode = transaction\nunix_socket_dir =\n"
                     << "logfile = " << own_->dir() << "/pgbouncer.log\npidfile = " << own_->dir()
                     << "/pgbouncer.pid\nserver_reset_query =\nignore_startup_parameters = "
                        "extra_float_digits\nadmin_users = postgres\n"
                     << "[users]\n";
  ASSERT_EQ(system(absl::StrCat("sed -i 's/^\\* = .*/* = host=127.0.0.1 port=", own_->port(), " user=postgres/' ", ini,
                                "; chmod -R a+rX ", own_->dir(), "/pgbouncer.ini ", own_->dir(),
                                "/users.txt; runuser -u postgres -- /usr/sbin/pgbouncer -d ", ini, " >/dev/null 2>&1")
                       .c_str()),
            0);
  ASSERT_TRUE(Accepting(port)) << "pgbouncer goes to the background before it listens, and never did";
  std::string name = dsn_.substr(dsn_.rfind('=') + 1);
  listen_dsn_ = dsn_;
  dsn_ = absl::StrCat("host=127.0.0.1 port=", port, " user=postgres dbname=", name);
  prepared_ = false;
  ASSERT_NO_FATAL_FAILURE(Reopen());
  Load load;
  StartLoad(load, 8);
  EXPECT_TRUE(More(load, 300));
  EndLoad(load);
  Ear ear;
  auto other = OpenDatabase(ear);
  EXPECT_TRUE(Listens(ear, *database_)) << "LISTEN has its own session, past the pooler";
  other.reset();
  database_.reset();
  (void)!system(absl::StrCat("kill $(cat ", own_->dir(), "/pgbouncer.pid)").c_str());
}

TEST_P(PostgresTest, SeveralReplicasWorkOnOneDatabase) {
  constexpr int kReplicas = 3, kRuns = 30;
  std::vector<std::unique_ptr<Ear>> ears;
  std::vector<std::unique_ptr<Database>> replicas;
  for (int i = 0; i < kReplicas; ++i) {
    ears.push_back(std::make_unique<Ear>());
    replicas.push_back(OpenDatabase(*ears.back()));
  }
  auto engine = Register("e", "1");
  for (int r = 0; r < kRuns; ++r) ASSERT_THAT(Create(absl::StrCat("run", r), &engine), IsOk());
  // The same run's appends through changing replicas, and all replicas at once.
  std::vector<std::thread> threads;
  for (int t = 0; t < kRuns; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 1; i <= 20; ++i) {
        EXPECT_THAT(Append(Entries(absl::StrCat("run", t), 1, i), nullptr,
                           replicas[static_cast<size_t>(t + i) % kReplicas].get()),
                    IsOk());
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (int r = 0; r < kRuns; ++r)
    EXPECT_EQ(JournalOf(absl::StrCat("run", r), replicas[static_cast<size_t>(r) % kReplicas].get()).size(), 20u);
}

TEST_P(PostgresTest, ClaimsOfSeveralEnginesAreFairAndDoNotOverlap) {
  for (int i = 0; i < 40; ++i) ASSERT_THAT(Create(absl::StrCat("run", 100 + i)), IsOk());
  std::vector<v1::InstanceRef> engines;
  for (int i = 0; i < 4; ++i) engines.push_back(Register(absl::StrCat("e", i), "1"));
  std::mutex mutex;
  std::map<std::string, int> owners;
  std::vector<size_t> shares(4);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < engines.size(); ++i) {
    threads.emplace_back([&, i] {
      auto claimed = Claim(engines[i], 1000);
      ASSERT_THAT(claimed, IsOk());
      std::lock_guard<std::mutex> lock(mutex);
      shares[i] = static_cast<size_t>(claimed->runs_size());
      for (const auto& run : claimed->runs()) ++owners[run.run_id()];
    });
  }
  for (auto& thread : threads) thread.join();
  for (const auto& [run, count] : owners) EXPECT_EQ(count, 1) << run;
  for (size_t share : shares) EXPECT_LE(share, 10u) << "nobody takes more than a share";
}

}  // namespace
}  // namespace tutti::state_manager::testing

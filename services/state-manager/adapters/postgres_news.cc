#include "services/state-manager/adapters/postgres_news.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <pqxx/pqxx>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "runtime/random/random.h"
#include "services/state-manager/adapters/postgres_session.h"

namespace tutti::state_manager {
namespace {

constexpr char kChannel[] = "tutti_news";
// PostgreSQL's limit of a payload is 8000 bytes.
constexpr size_t kMaxPayload = 7500;
constexpr size_t kMaxOutgoing = 20000;
// Of which what agents say, which may get lost, takes no more.
constexpr size_t kMaxTexts = 2000;
constexpr absl::Duration kRecount = absl::Seconds(10);
// Between two sends: what gathers meanwhile goes as one.
constexpr int kPaceMillis = 2;

class Receiver final : public pqxx::notification_receiver {
 public:
  Receiver(pqxx::connection_base& link, std::function<void(absl::string_view)> hear)
      : pqxx::notification_receiver(link, kChannel), hear_(std::move(hear)) {}
  void operator()(const std::string& payload, int) override { hear_(payload); }

 private:
  std::function<void(absl::string_view)> hear_;
};

}  // namespace

std::string FormatNews(const News& news) {
  switch (news.kind) {
    case News::Kind::kRun:
      return absl::StrCat("r", news.id);
    case News::Kind::kClaimable:
      return "c";
    case News::Kind::kCancel:
      return absl::StrCat("x", news.instance, "\t", news.id);
    case News::Kind::kInbox:
      return absl::StrCat("i", news.instance, "\t", news.id);
    case News::Kind::kEnded:
      return absl::StrCat("e", news.instance, "\t", news.id);
    case News::Kind::kContext:
      return absl::StrCat("d", news.id);
    case News::Kind::kOutbox:
      return "o";
    case News::Kind::kText:
      return absl::StrCat("t", absl::Base64Escape(news.text), "\t", news.id);
  }
  return "";
}

bool ParseNews(absl::string_view line, News* out) {
  if (line.empty()) return false;
  absl::string_view rest = line.substr(1);
  switch (line[0]) {
    case 'r':
      *out = {News::Kind::kRun, std::string(rest), ""};
      return true;
    case 'c':
      *out = {News::Kind::kClaimable, "", ""};
      return true;
    case 'o':
      *out = {News::Kind::kOutbox, "", ""};
      return true;
    case 'd':
      *out = {News::Kind::kContext, std::string(rest), ""};
      return true;
    case 't': {
      std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(rest, absl::MaxSplits('\t', 1));
      *out = {News::Kind::kText, std::string(parts.second), ""};
      return absl::Base64Unescape(parts.first, &out->text);
    }
    case 'x':
    case 'i':
    case 'e': {
      std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(rest, absl::MaxSplits('\t', 1));
      News::Kind kind = line[0] == 'x' ? News::Kind::kCancel : line[0] == 'i' ? News::Kind::kInbox : News::Kind::kEnded;
      *out = {kind, std::string(parts.second), std::string(parts.first)};
      return true;
    }
    default:
      return false;
  }
}

struct PostgresNews::Link {
  explicit Link(const std::string& dsn) : link(dsn), quiet(link) { link.inhibit_reactivation(true); }
  pqxx::connection link;
  pqxx::quiet_errorhandler quiet;
  void Notify(const std::string& payload) {
    pqxx::nontransaction work(link);
    work.exec_params("SELECT pg_notify($1, $2)", kChannel, payload);
  }
};

PostgresNews::PostgresNews(std::string dsn, NewsListener& listener)
    : dsn_(std::move(dsn)),
      listener_(listener),
      self_(absl::StrCat(absl::Hex(Xoshiro::SeedFromSystem()))),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  thread_ = std::thread([this] { Run(); });
}

PostgresNews::~PostgresNews() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  eventfd_write(wake_, 1);
  // A server that does not answer must not hold us.
  if (int socket = socket_; socket >= 0) shutdown(socket, SHUT_RDWR);
  thread_.join();
  close(wake_);
}

void PostgresNews::Send(const std::vector<News>& news) {
  {
    MutexLock lock(mutex_);
    if (!peers_) return;
    if (outgoing_.size() + news.size() > kMaxOutgoing) {
      overflow_ = true;
      outgoing_.clear();
    } else {
      for (const News& item : news) {
        if (item.kind != News::Kind::kText || outgoing_.size() < kMaxTexts) outgoing_.push_back(item);
      }
    }
  }
  eventfd_write(wake_, 1);
}

bool PostgresNews::WaitForWork(int socket) {
  pollfd fds[2] = {{wake_, POLLIN, 0}, {socket, POLLIN, 0}};
  poll(fds, socket >= 0 ? 2 : 1, 1000);
  eventfd_t value = 0;
  (void)eventfd_read(wake_, &value);
  MutexLock lock(mutex_);
  return !stopping_;
}

void PostgresNews::Run() {
  for (;;) {
    try {
      std::string dsn = WithParameter(WithParameter(dsn_, "application_name", "tutti-news"), "connect_timeout", "3");
      Link link(dsn);
      socket_ = link.link.sock();
      Serve(link);
      socket_ = -1;
      return;
    } catch (const std::exception&) {
      // The database is away: those who wait poll, and the next connection tells them to look again.
    }
    socket_ = -1;
    {
      MutexLock lock(mutex_);
      outgoing_.clear();
      if (stopping_) return;
    }
    pollfd fd = {wake_, POLLIN, 0};
    poll(&fd, 1, 500);
  }
}

void PostgresNews::Serve(Link& link) {
  Receiver receiver(link.link, [this](absl::string_view payload) { Hear(payload); });
  {
    pqxx::nontransaction work(link.link);
    work.exec("SET synchronous_commit = off");
  }
  // What was said until now was not heard.
  listener_.OnNewsLost();
  link.Notify(absl::StrCat(self_, "\nhello"));
  absl::Time recount = absl::Now();
  do {
    link.link.get_notifs();
    if (!link.link.is_open()) throw pqxx::broken_connection();
    if (absl::Now() >= recount) {
      pqxx::nontransaction work(link.link);
      auto row = work.exec1(
          "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tutti-news' AND datname = "
          "current_database()");
      MutexLock lock(mutex_);
      peers_ = row[0].as<int64_t>() > 1;
      recount = absl::Now() + kRecount;
    }
    std::vector<News> outgoing;
    bool overflow;
    {
      MutexLock lock(mutex_);
      outgoing.swap(outgoing_);
      overflow = std::exchange(overflow_, false);
    }
    if (overflow) link.Notify(absl::StrCat(self_, "\nall"));
    // Nobody's work waits for what is said.
    std::stable_partition(outgoing.begin(), outgoing.end(),
                          [](const News& item) { return item.kind != News::Kind::kText; });
    std::string payload = self_;
    for (const News& news : outgoing) {
      std::string line = FormatNews(news);
      if (self_.size() + line.size() + 1 > kMaxPayload) continue;
      if (payload.size() + line.size() + 1 > kMaxPayload) {
        link.Notify(payload);
        payload = self_;
      }
      absl::StrAppend(&payload, "\n", line);
    }
    if (payload.size() > self_.size()) {
      link.Notify(payload);
      poll(nullptr, 0, kPaceMillis);
    }
  } while (WaitForWork(link.link.sock()));
}

void PostgresNews::Hear(absl::string_view payload) {
  std::vector<absl::string_view> lines = absl::StrSplit(payload, '\n');
  if (lines.empty() || lines[0] == self_) return;
  std::vector<News> heard;
  for (size_t i = 1; i < lines.size(); ++i) {
    if (lines[i] == "hello") {
      MutexLock lock(mutex_);
      peers_ = true;
    } else if (lines[i] == "all") {
      listener_.OnNewsLost();
    } else if (News news; ParseNews(lines[i], &news)) {
      heard.push_back(std::move(news));
    }
  }
  if (!heard.empty()) listener_.OnNews(heard);
}

}  // namespace tutti::state_manager

#include "services/state-manager/adapters/postgres_session.h"

#include <libpq-fe.h>

#include <optional>
#include <pqxx/pqxx>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"

namespace tutti::state_manager {

// A parameter in text form, or in the form in which the server keeps it.
struct PgParam {
  bool null = true;
  bool bytes = false;   // `text` is bytes, to be written as hexadecimal digits
  bool number = false;  // of a bigint, if columns stand beside it
  std::string text;
};

}  // namespace tutti::state_manager

namespace pqxx {
template <>
struct string_traits<tutti::state_manager::PgParam> {
  static constexpr const char* name() noexcept { return "parameter"; }
  static constexpr bool has_null() noexcept { return true; }
  static bool is_null(const tutti::state_manager::PgParam& param) { return param.null; }
  static std::string to_string(const tutti::state_manager::PgParam& param) {
    return param.bytes ? absl::StrCat("\\x", absl::BytesToHexString(param.text)) : param.text;
  }
};
}  // namespace pqxx

namespace tutti::state_manager {
namespace {

constexpr char kStatementEnded[] = "STATEMENT_ENDED";

// SQLSTATE classes: https://www.postgresql.org/docs/15/errcodes-appendix.html
absl::Status FromSqlState(const std::string& state, const std::string& text) {
  // 23505: somebody else wrote the row between our look and our write; the next look finds it. 22012: what a statement
  // divides by zero for, see Journal::WriteAtOnce.
  if (state == "40001" || state == "40P01" || state == "23505" || state == "22012") return absl::AbortedError(text);
  if (absl::StartsWith(state, "53") && state != "53300") {
    return Error(absl::StatusCode::kResourceExhausted, "DISK_FULL",
                 absl::StrCat("the database has no room (", text, "); nothing was written. Free space and try again"))
        .RetryAfter(absl::Seconds(5));
  }
  if (state == "57014") {
    return Error(absl::StatusCode::kUnavailable, kStatementEnded,
                 absl::StrCat("the database has ended a statement that took too long (", text,
                              "); what it was part of was not written. The same request may be sent again; raise "
                              "--state-manager.postgres.statement-timeout if this comes back"))
        .RetryAfter(absl::Seconds(5));
  }
  if (absl::StartsWith(state, "08") || absl::StartsWith(state, "57") || absl::StartsWith(state, "58") ||
      state == "53300" || state == "25006") {  // 25006: the server has become a standby
    return Away(text);
  }
  if (state == "XX001" || state == "XX002") {
    return Error(absl::StatusCode::kDataLoss, "DATABASE_DAMAGED", absl::StrCat("the database is damaged: ", text));
  }
  if (absl::StartsWith(state, "28") || state == "3D000") {
    return Error(absl::StatusCode::kFailedPrecondition, "DATABASE_REFUSES",
                 absl::StrCat("the database refuses the connection: ", text, ". Check --state-manager.postgres.dsn"));
  }
  if (absl::StartsWith(state, "22")) {
    return Error(absl::StatusCode::kInvalidArgument, "VALUE_REFUSED",
                 absl::StrCat("the database refuses a value: ", text));
  }
  return Error(absl::StatusCode::kInternal, "DATABASE_ERROR", absl::StrCat(text, " (SQLSTATE ", state, ")"));
}

constexpr size_t kMaxPrepared = 500;

void PutBigEndian(std::string& out, uint64_t value, int bytes) {
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) out.push_back(static_cast<char>(value >> shift));
}

// As array_send writes it (src/backend/utils/adt/arrayfuncs.c): dimensions, whether there are nulls, the elements'
// type, each dimension's size and first index, each element behind its size.
std::string BinaryArray(const SqlColumn& column) {
  constexpr uint64_t kInt8 = 20, kText = 25, kBytea = 17;  // pg_type.dat
  const bool ints = column.kind() == SqlColumn::Kind::kInts;
  const size_t count = ints ? column.ints().size() : column.texts().size();
  size_t bytes = 20 + 4 * count + 8 * column.ints().size();
  for (absl::string_view text : column.texts()) bytes += text.size();
  std::string out;
  out.reserve(bytes);
  PutBigEndian(out, count > 0 ? 1 : 0, 4);
  PutBigEndian(out, 0, 4);
  PutBigEndian(out, ints ? kInt8 : column.kind() == SqlColumn::Kind::kTexts ? kText : kBytea, 4);
  if (count == 0) return out;
  PutBigEndian(out, count, 4);
  PutBigEndian(out, 1, 4);
  for (int64_t value : column.ints()) {
    PutBigEndian(out, 8, 4);
    PutBigEndian(out, static_cast<uint64_t>(value), 8);
  }
  for (absl::string_view text : column.texts()) {
    PutBigEndian(out, text.size(), 4);
    out.append(text.data(), text.size());
  }
  return out;
}

std::string OneLine(absl::string_view text) {
  return absl::StrReplaceAll(absl::StripAsciiWhitespace(text), {{"\n", "; "}, {"\t", " "}});
}

}  // namespace

struct PostgresSession::Connection {
  explicit Connection(const std::string& dsn) : link(dsn), quiet(link) {}
  pqxx::connection link;
  pqxx::quiet_errorhandler quiet;
  std::optional<pqxx::nontransaction> single;
  std::optional<pqxx::transaction<pqxx::repeatable_read, pqxx::read_only>> snapshot;
  pqxx::transaction_base* current = nullptr;
};

PostgresSession::PostgresSession(const PostgresOptions& options) : options_(options) {}

template <class Body>
absl::Status PostgresSession::Guard(Body body) {
  struct Busy {
    explicit Busy(std::atomic<int64_t>& since) : since(since) { since = absl::ToUnixMicros(absl::Now()); }
    ~Busy() { since = 0; }
    std::atomic<int64_t>& since;
  };
  Busy busy(busy_since_);
  try {
    body();
    return absl::OkStatus();
  } catch (const pqxx::statement_completion_unknown& e) {
    broken_ = true;
    return Keep(Away(OneLine(e.what())));
  } catch (const pqxx::transaction_rollback& e) {  // deadlocks and serialization failures
    return Keep(absl::AbortedError(OneLine(e.what())));
  } catch (const pqxx::broken_connection& e) {
    broken_ = true;
    return Keep(Away(OneLine(e.what())));
  } catch (const pqxx::sql_error& e) {
    absl::Status status = FromSqlState(e.sqlstate(), OneLine(e.what()));
    if (absl::IsUnavailable(status) && ReasonOf(status) != kStatementEnded) broken_ = true;
    return Keep(status);
  } catch (const std::exception& e) {
    if (connection_ && !connection_->link.is_open()) {
      broken_ = true;
      return Keep(Away(OneLine(e.what())));
    }
    return Keep(Error(absl::StatusCode::kInternal, "DATABASE_ERROR", OneLine(e.what())));
  }
}

absl::Status PostgresSession::Keep(absl::Status status) {
  if (failure_.ok()) failure_ = status;
  return status;
}

class PostgresSession::StatementOfPostgres final : public StatementImpl {
 public:
  StatementOfPostgres(PostgresSession& session, std::string sql, std::string name)
      : session_(session), sql_(std::move(sql)), name_(std::move(name)) {}

  void Bind(int position, const SqlArg& arg) override {
    PgParam& param = At(position);
    param.null = false;
    switch (arg.kind) {
      case SqlArg::Kind::kNull:
        param.null = true;
        break;
      case SqlArg::Kind::kInt:
        param.text = absl::StrCat(arg.integer);
        param.number = true;
        break;
      case SqlArg::Kind::kDouble:
        param.text = pqxx::to_string(arg.real);
        break;
      case SqlArg::Kind::kText:
        param.text = std::string(arg.text);
        if (arg.text.find('\0') != absl::string_view::npos) {
          status_ = Error(absl::StatusCode::kInvalidArgument, "VALUE_REFUSED",
                          "text with a NUL character cannot be stored; remove it");
        }
        break;
      case SqlArg::Kind::kBytes:
        param.bytes = true;
        param.text = std::string(arg.text);
        break;
    }
  }
  void BindList(int position, const std::vector<std::string>& values) override {
    PgParam& param = At(position);
    param.null = false;
    param.text.assign(1, '{');
    for (const auto& value : values) {
      absl::StrAppend(&param.text, param.text.size() > 1 ? "," : "", "\"",
                      absl::StrReplaceAll(value, {{"\\", "\\\\"}, {"\"", "\\\""}}), "\"");
    }
    param.text += "}";
  }
  void BindColumn(int position, const SqlColumn& column) override {
    PgParam& param = At(position);
    param.null = false;
    param.text = BinaryArray(column);
    columns_ = true;
  }
  bool StepAndCommit() override {
    commit_ = session_.alone() && session_.state_ == State::kToBegin;
    return Step();
  }
  bool Step() override {
    if (!ran_) {
      ran_ = true;
      if (!status_.ok()) {
        (void)session_.Keep(status_);
        return false;
      }
      if (!session_.failure_.ok()) {
        status_ = session_.failure_;
        return false;
      }
      if (session_.connection_->current == nullptr) {
        status_ = session_.Keep(absl::InternalError("a statement outside of a transaction"));
        return false;
      }
      status_ = session_.Guard([this] {
        if (!commit_) session_.EnsureBegun();
        Execute();
        if (commit_) session_.state_ = State::kCommitted;
      });
      if (!status_.ok() && commit_) status_ = session_.DoubtCommit(status_);
      if (!status_.ok()) return false;
      row_ = -1;
    }
    if (!status_.ok()) return false;
    return ++row_ < static_cast<int>(result_.size());
  }
  int64_t Changes() const override { return changes_; }
  bool IsNull(int column) const override { return Field(column).is_null(); }
  int64_t Int(int column) const override {
    int64_t value = 0;
    (void)absl::SimpleAtoi(View(column), &value);
    return value;
  }
  double Double(int column) const override {
    double value = 0;
    (void)absl::SimpleAtod(View(column), &value);
    return value;
  }
  std::string Text(int column) const override { return std::string(View(column)); }
  std::string Bytes(int column) const override {
    absl::string_view hex = View(column);
    return absl::StartsWith(hex, "\\x") ? absl::HexStringToBytes(hex.substr(2)) : std::string(hex);
  }
  const absl::Status& status() const override { return status_; }
  void Release() override {
    result_ = pqxx::result();
    ran_ = commit_ = columns_ = false;
    status_ = absl::OkStatus();
    for (auto& param : params_) param = PgParam();
  }

 private:
  PgParam& At(int position) {
    if (static_cast<int>(params_.size()) < position) params_.resize(static_cast<size_t>(position));
    return params_[static_cast<size_t>(position - 1)];
  }
  void Execute() {
    auto& transaction = *session_.connection_->current;
    if (session_.options_.prepared_statements && !prepared_) {
      session_.connection_->link.prepare(name_, sql_);
      prepared_ = true;
    }
    auto run = [&](const auto&... all) {
      return prepared_ ? transaction.exec_prepared(name_, all...) : transaction.exec_params(sql_, all...);
    };
    if (columns_) {  // libpqxx sends either all of a list in binary form or none
      std::vector<pqxx::binarystring> binary;
      binary.reserve(params_.size());
      for (const PgParam& param : params_) binary.push_back(Binary(param));
      result_ = run(pqxx::internal::dynamic_params<std::vector<pqxx::binarystring>::const_iterator>(binary.begin(),
                                                                                                    binary.end()));
    } else {
      // A last parameter can be sent as the bytes it is, half as many.
      const bool raw = !params_.empty() && params_.back().bytes && !params_.back().null;
      pqxx::internal::dynamic_params<std::vector<PgParam>::const_iterator> params(params_.begin(), params_.end() - raw);
      result_ = raw ? run(params, pqxx::binarystring(params_.back().text)) : run(params);
    }
    changes_ = result_.columns() > 0 ? static_cast<int64_t>(result_.size()) : 0;
    if (auto affected = result_.affected_rows(); affected > 0) changes_ = static_cast<int64_t>(affected);
    if (!absl::StartsWithIgnoreCase(sql_, "SELECT")) session_.rows_written_ += changes_;
  }
  static pqxx::binarystring Binary(const PgParam& param) {
    if (!param.number) return pqxx::binarystring(param.text);
    int64_t value = 0;
    (void)absl::SimpleAtoi(param.text, &value);
    std::string bytes;
    PutBigEndian(bytes, static_cast<uint64_t>(value), 8);
    return pqxx::binarystring(bytes);
  }
  pqxx::field Field(int column) const { return result_[static_cast<pqxx::result::size_type>(row_)][column]; }
  absl::string_view View(int column) const {
    auto field = Field(column);
    return absl::string_view(field.c_str(), field.size());
  }

  PostgresSession& session_;
  const std::string sql_, name_;
  bool prepared_ = false;
  bool ran_ = false;
  bool commit_ = false;   // the statement is a transaction of its own
  bool columns_ = false;  // there are columns among its parameters
  std::vector<PgParam> params_;
  pqxx::result result_;
  int row_ = -1;
  int64_t changes_ = 0;
  absl::Status status_;
};

std::string WithParameter(const std::string& dsn, absl::string_view key, absl::string_view value) {
  if (absl::StrContains(dsn, "://")) {
    std::string escaped;
    for (char c : value) {
      bool plain = absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
      if (plain) {
        escaped.push_back(c);
      } else {
        absl::StrAppend(&escaped, "%", absl::BytesToHexString(absl::string_view(&c, 1)));
      }
    }
    return absl::StrCat(dsn, absl::StrContains(dsn, "?") ? "&" : "?", key, "=", escaped);
  }
  return absl::StrCat(dsn, " ", key, "='", absl::StrReplaceAll(value, {{"\\", "\\\\"}, {"'", "\\'"}}), "'");
}

namespace {

// By libpq's own rules; what it says of a wrong string sounds as if a server had been asked.
absl::Status CheckDsn(const std::string& dsn) {
  char* error = nullptr;
  PQconninfoOption* parsed = PQconninfoParse(dsn.c_str(), &error);
  std::string why = error ? OneLine(error) : "";
  PQconninfoFree(parsed);
  PQfreemem(error);
  if (parsed) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("this is no connection string of PostgreSQL (", why,
                                                 "); write \"host=… dbname=… user=…\" or "
                                                 "postgresql://user@host/dbname"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<PostgresSession>> PostgresSession::Connect(const std::string& dsn,
                                                                          const PostgresOptions& options) {
  TUTTI_RETURN_IF_ERROR(CheckDsn(dsn));
  std::unique_ptr<PostgresSession> out(new PostgresSession(options));
  std::string full = WithParameter(dsn, "connect_timeout",
                                   absl::StrCat(std::max<int64_t>(1, absl::ToInt64Seconds(options.connect_timeout))));
  if (!absl::StrContains(dsn, "application_name")) full = WithParameter(full, "application_name", "tutti");
  full = WithParameter(full, "tcp_user_timeout", absl::StrCat(absl::ToInt64Milliseconds(options.statement_timeout)));
  std::string why;
  try {
    out->connection_ = std::make_unique<Connection>(full);
    pqxx::connection& link = out->connection_->link;
    out->socket_ = link.sock();
    // A lost connection is not made anew under our hands: prepared statements and the socket would be another's.
    link.inhibit_reactivation(true);
    if (options.prepared_statements) {  // a session of our own, no pooler's
      pqxx::nontransaction work(link);
      // Statements are written to be planned once: planning one anew for each execution costs more than it brings
      // (docs/performance.md). They all go by an index, which a plan made while the tables are small would not, and is
      // then kept until the next ANALYZE. (With sequential scans priced as they are then, the JIT compiler would think
      // every statement worth its while.)
      work.exec(
          absl::StrCat("SET statement_timeout = ", absl::ToInt64Milliseconds(options.statement_timeout),
                       "; SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_hashjoin "
                       "= off; SET enable_mergejoin = off; SET jit = off"));
    }
  } catch (const std::exception& e) {
    why = OneLine(e.what());
  }
  if (!why.empty()) {
    // libpqxx gives no SQLSTATE here; only a server that answers says FATAL.
    if (absl::StrContains(why, "authentication failed") || absl::StrContains(why, "does not exist") ||
        absl::StrContains(why, "no pg_hba")) {
      return FromSqlState("28000", why);
    }
    return Away(why);
  }
  return out;
}

PostgresSession::~PostgresSession() {
  prepared_.clear();
  if (connection_) (void)Guard([this] { connection_.reset(); });
}

Statement PostgresSession::Prepare(absl::string_view sql) {
  auto it = prepared_.find(sql);
  if (it == prepared_.end()) {
    auto statement = std::make_unique<StatementOfPostgres>(*this, std::string(sql),
                                                           absl::StrCat("s", generation_, "_", prepared_.size()));
    it = prepared_.emplace(std::string(sql), std::move(statement)).first;
  }
  return Statement(it->second.get());
}

#define TUTTI_NOW "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

int64_t PostgresSession::ClockShiftMicros() const {
  return options_.time_shift ? absl::ToInt64Microseconds(options_.time_shift()) : 0;
}

int64_t PostgresSession::NowMicros() {
  if (transaction_time_ != 0 || !failure_.ok()) return transaction_time_;
  if (state_ == State::kToBegin) {
    (void)Guard([this] {
      state_ = State::kBegun;  // perhaps half of it: a ROLLBACK too much is only a warning
      transaction_time_ = connection_->current->exec("BEGIN; " TUTTI_NOW)[0][0].as<int64_t>() + ClockShiftMicros();
    });
  } else {
    Statement now = Prepare(TUTTI_NOW);
    if (now.Step()) transaction_time_ = now.Int(0) + ClockShiftMicros();
  }
  return transaction_time_;
}

absl::Status PostgresSession::Execute(const std::string& script) {
  TUTTI_RETURN_IF_ERROR(failure_);
  return Guard([&] {
    EnsureBegun();
    connection_->current->exec(script);
  });
}

absl::StatusOr<Transaction*> PostgresSession::Begin() {
  Rollback();
  TUTTI_RETURN_IF_ERROR(Guard([this] { connection_->current = &connection_->single.emplace(connection_->link); }));
  state_ = State::kToBegin;
  return this;
}

void PostgresSession::EnsureBegun() {
  if (state_ != State::kToBegin) return;
  connection_->current->exec("BEGIN");
  state_ = State::kBegun;
}

absl::Status PostgresSession::Commit() {
  if (state_ != State::kBegun) return failure_;  // nothing was written, or it is committed
  absl::Status status = Guard([this] { connection_->current->exec("COMMIT"); });
  state_ = State::kIdle;
  return status.ok() ? status : DoubtCommit(status);
}

absl::Status PostgresSession::DoubtCommit(const absl::Status& status) {
  if (!broken_ && connection_->link.is_open()) return status;  // the server has answered
  broken_ = true;
  // No UNAVAILABLE: clients repeat that by themselves, and what was perhaps committed must not be done twice unasked.
  failure_ = Error(absl::StatusCode::kUnknown, "COMMIT_UNKNOWN",
                   "the database was lost during the commit, and it is not known what was written; look before you "
                   "send the request again, or give it a request_id");
  return failure_;
}

void PostgresSession::Rollback() {
  if (state_ == State::kBegun && !broken_) {
    absl::Status ended = Guard([this] { connection_->current->exec("ROLLBACK"); });
    if (!ended.ok()) broken_ = true;  // in whatever state it is, nobody shall have it
  }
  (void)Guard([this] {
    connection_->current = nullptr;
    connection_->single.reset();
    connection_->snapshot.reset();
  });
  state_ = State::kIdle;
  set_alone(false);
  failure_ = absl::OkStatus();
  transaction_time_ = 0;
  rows_written_ = 0;
  TakeNews();
  if (prepared_.size() > kMaxPrepared && !broken_) {  // filters have many shapes
    prepared_.clear();
    ++generation_;
    (void)Guard([this] {
      pqxx::nontransaction work(connection_->link);
      work.exec("DEALLOCATE ALL");
    });
    failure_ = absl::OkStatus();
  }
}

absl::Status PostgresSession::BeginRead(bool snapshot) {
  Rollback();
  state_ = State::kReading;
  return Guard([&] {
    if (snapshot) {
      connection_->current = &connection_->snapshot.emplace(connection_->link);
    } else {
      connection_->current = &connection_->single.emplace(connection_->link);
    }
  });
}

void PostgresSession::EndRead() { Rollback(); }

bool PostgresSession::Ping() {
  bool alive = BeginRead(/*snapshot=*/false).ok() && Execute("SELECT 1").ok();
  EndRead();
  return alive && !broken_;
}

}  // namespace tutti::state_manager

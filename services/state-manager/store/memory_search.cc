// The searching half of Memories: vectors, full text, and the score that joins them.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "absl/strings/ascii.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "services/state-manager/domain/memory_score.h"
#include "services/state-manager/store/memory_rows.h"
#include "services/state-manager/store/rows.h"

namespace tutti::state_manager {
namespace {

constexpr int kMinDimensions = 8, kMaxDimensions = 4096;
// Candidates of each half of a search. Each vector that is looked at costs a miss of the cache: fewer of them.
constexpr size_t kCandidates = 200, kNearest = 80, kNearestFiltered = 1000;
constexpr size_t kMaxQueryTerms = 24;
// Where a filter leaves this few memories, each is looked at. Up to so many of a tenant's are read to find out.
constexpr size_t kFew = 2000;
constexpr int64_t kMostFiltered = 20000;
// Memories that full text ranks in one search: ranking every match of common words took 100 ms at 100,000 memories.
constexpr int64_t kMostRanked = 1000;
constexpr int64_t kMostOfOneTerm = 2000;
constexpr int64_t kWordsKept = int64_t{5} * 60 * 1000 * 1000;
constexpr int64_t kWordsAgain = int64_t{30} * 1000 * 1000;
constexpr size_t kMaxWordsKept = 10000;

std::vector<float> ToVector(absl::string_view bytes) {
  std::vector<float> out(bytes.size() / sizeof(float));
  std::memcpy(out.data(), bytes.data(), out.size() * sizeof(float));
  return out;
}

void Normalize(std::vector<float>& vector) {
  double norm = 0;
  for (float x : vector) norm += static_cast<double>(x) * x;
  if (norm <= 0) return;
  for (float& x : vector) x = static_cast<float>(x / std::sqrt(norm));
}

std::string Joined(const std::vector<std::string>& terms, absl::string_view quote, absl::string_view with) {
  std::string query;
  for (const auto& term : terms) absl::StrAppend(&query, query.empty() ? "" : with, quote, term, quote);
  return query;
}

// The best is 1.
void ToUnit(std::map<int64_t, double>& ranks) {
  double best = 0;
  for (const auto& [number, rank] : ranks) best = std::max(best, rank);
  for (auto& [number, rank] : ranks) rank = best > 0 ? rank / best : 1;
}

std::vector<std::string> ToTexts(const std::vector<int64_t>& numbers) {
  std::vector<std::string> out;
  out.reserve(numbers.size());
  for (int64_t number : numbers) out.push_back(absl::StrCat(number));
  return out;
}

// Words of a query, lower case, each once.
std::vector<std::string> Terms(absl::string_view query) {
  std::vector<std::string> out;
  std::set<std::string> seen;
  std::string word;
  auto end = [&] {
    if (!word.empty() && seen.insert(word).second && out.size() < kMaxQueryTerms) out.push_back(word);
    word.clear();
  };
  for (char c : query) {
    auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80 || absl::ascii_isalnum(byte)) {
      word.push_back(absl::ascii_tolower(byte));
    } else {
      end();
    }
  }
  end();
  return out;
}

}  // namespace

absl::StatusOr<std::vector<float>> CheckEmbedding(const google::protobuf::RepeatedField<float>& given,
                                                  absl::string_view embedder) {
  std::vector<float> out(given.begin(), given.end());
  if (given.size() < kMinDimensions || given.size() > kMaxDimensions) {
    return Invalid("embedding",
                   absl::StrCat("has ", given.size(), " numbers; ", kMinDimensions, " to ", kMaxDimensions));
  }
  for (float x : out) {
    if (!std::isfinite(x)) return Invalid("embedding", "has a number that is not finite");
  }
  TUTTI_RETURN_IF_ERROR(CheckText("embedder", embedder, 100, /*required=*/true));
  Normalize(out);
  return out;
}

absl::Status Memories::LoadVectors(Transaction& tx, const std::vector<std::string>* numbers) const {
  constexpr int kPage = 2000;
  int64_t last = 0;
  for (bool more = true; more;) {
    int count = 0;
    Statement rows = tx.Prepare(
        numbers
            ? "SELECT number, memory_id, tenant, agent, embedder, embedding FROM memories WHERE number = "
              "ANY($1::bigint[])"
            : "SELECT number, memory_id, tenant, agent, embedder, embedding FROM memories WHERE number > $1 ORDER BY "
              "number LIMIT $2");
    if (numbers) {
      rows.BindList(*numbers);
    } else {
      rows.BindAll(last, kPage);
    }
    while (rows.Step()) {
      ++count;
      last = rows.Int(0);
      TUTTI_ASSIGN_OR_RETURN(std::string bytes,
                             payloads_.codec().Open(rows.Bytes(5), PlaceOfMemory(rows.Text(1), "embedding")));
      index_.Add(rows.Text(2), rows.Text(3), rows.Text(4), last, ToVector(bytes));
    }
    TUTTI_RETURN_IF_ERROR(rows.status());
    more = numbers == nullptr && count == kPage;
  }
  return absl::OkStatus();
}

absl::Status Memories::SyncIndex(Transaction& tx) const {
  MutexLock lock(sync_mutex_);
  return SyncLocked(tx);
}

absl::Status Memories::SyncIndexIfLoaded(Transaction& tx) const {
  MutexLock lock(sync_mutex_);
  return synced_change_ < 0 ? absl::OkStatus() : SyncLocked(tx);
}

absl::Status Memories::SyncLocked(Transaction& tx) const {
  if (synced_change_ < 0) {
    Statement newest = tx.Prepare("SELECT coalesce(max(change), 0) FROM memory_changes");
    int64_t change = newest.Step() ? newest.Int(0) : 0;
    TUTTI_RETURN_IF_ERROR(newest.status());
    index_.Clear();
    TUTTI_RETURN_IF_ERROR(LoadVectors(tx, nullptr));
    synced_change_ = change;
  }
  // Numbers are given before commits: a transaction that was slow shows smaller ones later. What is younger than any
  // transaction may get is read again each time; taking a change over twice does no harm.
  constexpr int64_t kSlowest = int64_t{30} * 1000 * 1000;
  std::vector<std::string> added;
  Statement rows = tx.Prepare(
      tx.sqlite()
          ? "SELECT change, number, removed FROM memory_changes WHERE change > $1 AND $2::bigint > 0 ORDER BY change"
          // Not by OR, for which PostgreSQL reads all of them.
          : "SELECT change, number, removed FROM memory_changes WHERE change > $1 UNION SELECT change, number, removed "
            "FROM memory_changes WHERE time > $2 ORDER BY change");
  rows.BindAll(synced_change_, tx.NowMicros() - kSlowest);
  int64_t newest = synced_change_;
  while (rows.Step()) {
    newest = std::max(newest, rows.Int(0));
    std::string number = absl::StrCat(rows.Int(1));
    if (rows.Int(2) != 0) {
      index_.Remove(rows.Int(1));
      std::erase(added, number);
    } else if (!index_.Contains(rows.Int(1))) {
      added.push_back(number);
    }
  }
  TUTTI_RETURN_IF_ERROR(rows.status());
  if (!added.empty()) TUTTI_RETURN_IF_ERROR(LoadVectors(tx, &added));
  synced_change_ = newest;
  return absl::OkStatus();
}

// PostgreSQL's statistics (of its last ANALYZE) know the commonest words and how common they are.
absl::Status Memories::LoadCommonWords(Transaction& tx) const {
  {
    MutexLock lock(words_mutex_);
    if (words_loaded_ > tx.NowMicros() - kWordsKept) return absl::OkStatus();
    words_loaded_ = tx.NowMicros();
  }
  // The list of frequencies ends with three that belong to no word.
  Statement rows = tx.Prepare(
      "SELECT s.term, (s.freq * c.reltuples)::bigint FROM (SELECT unnest(most_common_elems::text::text[]) AS term, "
      "unnest(most_common_elem_freqs[1:cardinality(most_common_elems::text::text[])]) AS freq FROM pg_stats WHERE "
      "schemaname = current_schema() AND tablename = 'memories' AND attname = 'search_vector') AS s, pg_class AS c "
      "WHERE c.oid = 'memories'::regclass");
  bool any = false;
  while (rows.Step()) {
    any = true;
    if (rows.Int(1) <= kMostRanked) continue;
    MutexLock lock(words_mutex_);
    common_words_[rows.Text(0)] = {rows.Int(1), tx.NowMicros()};
  }
  if (!any) {  // a table that was not analysed yet is asked for again soon
    MutexLock lock(words_mutex_);
    words_loaded_ = tx.NowMicros() - kWordsKept + kWordsAgain;
  }
  return rows.status();
}

// Leaves the terms that tell memories apart: the rarest, as long as they stand in few enough memories together to be
// ranked in time. Words that a tenth of all memories have say little, and would cost the most.
absl::Status Memories::KeepRareTerms(Transaction& tx, std::vector<std::string>& terms) const {
  if (!tx.sqlite()) TUTTI_RETURN_IF_ERROR(LoadCommonWords(tx));
  std::vector<std::pair<int64_t, std::string>> by_frequency;
  for (const auto& term : terms) {
    // Counting a common word reads all of its places: done once in a while, not for each search.
    int64_t memories = 0;
    {
      MutexLock lock(words_mutex_);
      auto known = common_words_.find(term);
      if (known != common_words_.end() && known->second.second > tx.NowMicros() - kWordsKept)
        memories = known->second.first;
    }
    if (memories == 0 && !tx.sqlite()) memories = 1;  // not among the common ones
    if (memories == 0) {
      Statement row = tx.Prepare("SELECT doc FROM memories_words WHERE term = $1");
      row.Bind(term);
      if (row.Step()) memories = row.Int(0);
      TUTTI_RETURN_IF_ERROR(row.status());
      if (memories == 0) {
        // The index has words without their marks and capitals, and parts of what we take for one: it finds them by
        // its own rules.
        Statement match = tx.Prepare(
            "SELECT count(*) FROM (SELECT 1 FROM memories_text WHERE memories_text MATCH $1 LIMIT $2) AS found");
        match.BindAll(Joined({term}, "\"", " OR "), kMostRanked + 1);
        if (match.Step()) memories = match.Int(0);
        TUTTI_RETURN_IF_ERROR(match.status());
      }
      if (memories > kMostRanked) {
        MutexLock lock(words_mutex_);
        if (common_words_.size() >= kMaxWordsKept) common_words_.clear();
        common_words_[term] = {memories, tx.NowMicros()};
      }
    }
    if (memories > 0) by_frequency.emplace_back(memories, term);
  }
  std::sort(by_frequency.begin(), by_frequency.end());
  terms.clear();
  int64_t together = 0;
  for (auto& [memories, term] : by_frequency) {
    together += memories;
    if (together > (terms.empty() ? kMostOfOneTerm : kMostRanked)) break;
    terms.push_back(term);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<std::vector<int64_t>>> Memories::ListFew(Transaction& tx,
                                                                      const v1::MemoryFilter& filter) const {
  std::optional<std::vector<int64_t>> out;
  if (filter.run_id().empty() && filter.session_id().empty()) {  // these have an index
    Statement row = tx.Prepare("SELECT memories FROM memory_tenants WHERE tenant = $1");
    row.Bind(filter.tenant());
    const int64_t memories = row.Step() ? row.Int(0) : 0;
    TUTTI_RETURN_IF_ERROR(row.status());
    if (memories > kMostFiltered) return out;
  }
  Condition where = Where(tx, filter, 2);
  Statement rows = tx.Prepare(absl::StrCat("SELECT m.number FROM memories AS m WHERE", where.sql, " LIMIT $1"));
  rows.Bind(static_cast<int64_t>(kFew + 1));
  where.Bind(rows);
  std::vector<int64_t> numbers;
  while (rows.Step()) numbers.push_back(rows.Int(0));
  TUTTI_RETURN_IF_ERROR(rows.status());
  if (numbers.size() <= kFew) out = std::move(numbers);
  return out;
}

absl::StatusOr<std::map<int64_t, double>> Memories::RankAmong(Transaction& tx, const std::vector<int64_t>& few,
                                                              const std::vector<std::string>& terms,
                                                              size_t most) const {
  // From the list to the rows, in this order: the index would else be read for all memories with such words.
  Statement rows = tx.Prepare(
      tx.sqlite()
          ? "SELECT memories_text.rowid, -bm25(memories_text) FROM json_each($1) AS n CROSS JOIN memories_text ON "
            "memories_text.rowid = CAST(n.value AS INTEGER) WHERE memories_text MATCH $2 ORDER BY "
            "bm25(memories_text) LIMIT $3"
          : "SELECT m.number, ts_rank(m.search_vector, q.asked, 1) AS rank FROM (SELECT to_tsquery('simple', $2) "
            "AS asked OFFSET 0) AS q, (SELECT number, search_vector FROM unnest($1::bigint[]) AS n(value) JOIN "
            "memories ON number = n.value OFFSET 0) AS m WHERE m.search_vector @@ q.asked ORDER BY rank DESC "
            "LIMIT $3");
  rows.BindList(ToTexts(few));
  rows.Bind(tx.sqlite() ? Joined(terms, "\"", " OR ") : Joined(terms, "'", " | ")).Bind(static_cast<int64_t>(most));
  std::map<int64_t, double> out;
  while (rows.Step()) out.emplace(rows.Int(0), rows.Double(1));
  TUTTI_RETURN_IF_ERROR(rows.status());
  ToUnit(out);
  return out;
}

absl::StatusOr<std::map<int64_t, double>> Memories::SearchText(Transaction& tx,
                                                               const v1::SearchMemoriesRequest& request,
                                                               size_t most) const {
  std::map<int64_t, double> out;
  std::vector<std::string> terms = Terms(request.query());
  if (terms.empty() || payloads_.codec().encrypts()) return out;
  // All terms first; any of them when that finds too few. A search for common words alone would else score half the
  // database.
  const std::vector<std::string> all_terms = terms;
  TUTTI_RETURN_IF_ERROR(KeepRareTerms(tx, terms));
  // What is common among all memories may be rare among those meant: they are looked at one by one, when they are few.
  if (terms.empty()) {
    TUTTI_ASSIGN_OR_RETURN(auto few, ListFew(tx, request.filter()));
    if (!few || few->empty()) return out;
    TUTTI_ASSIGN_OR_RETURN(out, RankAmong(tx, *few, all_terms, most));
    return out;
  }
  auto joined = [&](absl::string_view quote, absl::string_view with) { return Joined(terms, quote, with); };
  for (bool all : {true, false}) {
    std::string query = tx.sqlite() ? joined("\"", all ? " AND " : " OR ") : joined("'", all ? " & " : " | ");
    Condition where = Where(tx, request.filter(), tx.sqlite() ? 3 : 5);
    Statement rows = tx.Prepare(
        tx.sqlite()
            ? absl::StrCat("SELECT m.number, -bm25(memories_text) FROM memories_text JOIN memories AS m ON m.number = "
                           "memories_text.rowid WHERE memories_text MATCH $1 AND",
                           where.sql, " ORDER BY bm25(memories_text) LIMIT $2")
            // Some thousand of the matches are ranked, not all: a search for common words ends in time.
            : absl::StrCat(
                  "SELECT number, ts_rank(search_vector, asked, 1) AS rank FROM (SELECT to_tsquery('simple', $3) AS "
                  "asked OFFSET 0) AS q, (SELECT m.number, m.search_vector FROM memories AS m WHERE m.search_vector @@ "
                  "to_tsquery('simple', $1) AND",
                  where.sql, " LIMIT $4) AS matches ORDER BY rank DESC LIMIT $2"));
    rows.BindAll(query, static_cast<int64_t>(most));
    if (!tx.sqlite()) rows.Bind(joined("'", " | ")).Bind(kMostRanked);  // one scale of ranks for both rounds
    where.Bind(rows);
    while (rows.Step()) out.emplace(rows.Int(0), rows.Double(1));
    TUTTI_RETURN_IF_ERROR(rows.status());
    if (out.size() >= static_cast<size_t>(std::max(10, request.max_results())) || terms.size() == 1) break;
  }
  ToUnit(out);
  return out;
}

absl::Status Memories::SearchMemories(Transaction& tx, const v1::SearchMemoriesRequest& request,
                                      v1::SearchMemoriesResponse& response) const {
  TUTTI_RETURN_IF_ERROR(CheckText("query", request.query(), kMaxMemoryBytes));
  TUTTI_RETURN_IF_ERROR(CheckFilter(request.filter()));
  if (request.query().empty() && request.embedding().empty()) return Invalid("query", "must be given, or an embedding");
  if (request.max_results() < 0 || request.max_results() > 100) return Invalid("max_results", "must be 1 to 100");
  const size_t most = request.max_results() == 0 ? 10 : static_cast<size_t>(request.max_results());
  ScoreWeights weights;
  const v1::MemoryWeights& given = request.weights();
  if (given.has_relevance()) weights.relevance = given.relevance();
  if (given.has_recency()) weights.recency = given.recency();
  if (given.has_importance()) weights.importance = given.importance();
  if (given.has_text()) weights.text = given.text();
  if (given.has_half_life()) {
    TUTTI_RETURN_IF_ERROR(CheckDuration("weights.half_life", given.half_life(), 1, int64_t{100} * 366 * 86400));
    weights.half_life_seconds = static_cast<double>(ToMicros(given.half_life())) / 1e6;
  }
  for (double exponent : {weights.relevance, weights.recency, weights.importance}) {
    if (!(exponent >= 0 && exponent <= 10)) return Invalid("weights", "must be 0 to 10");
  }
  if (!(weights.text >= 0 && weights.text <= 1)) return Invalid("weights.text", "must be 0 to 1");
  std::vector<float> query;
  std::string embedder;
  if (!request.embedding().empty()) {
    TUTTI_ASSIGN_OR_RETURN(query, CheckEmbedding(request.embedding(), request.embedder()));
    embedder = request.embedder();
  } else {
    query = embedder_.Embed(request.query());
    embedder = embedder_.name();
  }
  TUTTI_RETURN_IF_ERROR(SyncIndex(tx));
  std::map<int64_t, double> text, vector;
  if (weights.text > 0 && !request.query().empty()) {
    TUTTI_ASSIGN_OR_RETURN(text, SearchText(tx, request, kCandidates));
  }
  // What the index knows nothing of is filtered afterwards: among few memories all are compared, among many more of the
  // nearest are.
  const v1::MemoryFilter& filter = request.filter();
  const bool narrow = !filter.kinds().empty() || !filter.run_id().empty() || !filter.session_id().empty() ||
                      !filter.tags().empty() || filter.has_created_before() || filter.has_created_after();
  std::optional<std::vector<int64_t>> few;
  if (narrow) {
    TUTTI_ASSIGN_OR_RETURN(few, ListFew(tx, filter));
  }
  const size_t nearest = std::max(narrow ? kNearestFiltered : kNearest, 2 * most);
  for (const auto& hit : few ? index_.Compare(*few, embedder, query)
                             : index_.Search(filter.tenant(), filter.agent(), embedder, query, nearest)) {
    vector[hit.number] = std::max(0.0, static_cast<double>(hit.cosine));
  }
  std::vector<std::string> numbers;
  for (const auto& [number, score] : vector) numbers.push_back(absl::StrCat(number));
  for (const auto& [number, score] : text) {
    if (!vector.contains(number)) numbers.push_back(absl::StrCat(number));
  }
  if (numbers.empty()) return absl::OkStatus();
  struct Candidate {
    int64_t number;
    ScoreParts parts;
  };
  std::vector<Candidate> candidates;
  const double now = static_cast<double>(tx.NowMicros());
  {
    Condition where = Where(tx, request.filter(), 2);
    // From the list to the rows, in this order: SQLite would else walk all of an agent's memories.
    Statement rows = tx.Prepare(
        absl::StrCat("SELECT m.number, m.importance, m.access_time FROM ",
                     tx.sqlite() ? "json_each($1) AS n CROSS JOIN memories AS m ON m.number = CAST(n.value AS INTEGER)"
                                 : "unnest($1::bigint[]) AS n(value) JOIN memories AS m ON m.number = n.value",
                     " WHERE", where.sql));
    rows.BindList(numbers);
    where.Bind(rows);
    while (rows.Step()) {
      int64_t number = rows.Int(0);
      auto t = text.find(number), v = vector.find(number);
      candidates.push_back({number, Score(weights, t == text.end() ? 0 : t->second, v == vector.end() ? 0 : v->second,
                                          (now - static_cast<double>(rows.Int(2))) / 1e6, rows.Double(1))});
    }
    TUTTI_RETURN_IF_ERROR(rows.status());
  }
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return a.parts.score != b.parts.score ? a.parts.score > b.parts.score : a.number > b.number;
  });
  if (candidates.size() > most) candidates.resize(most);
  for (const Candidate& candidate : candidates) {
    Statement row = tx.Prepare("SELECT " TUTTI_MEMORY_COLUMNS " FROM memories WHERE number = $1");
    row.Bind(candidate.number);
    if (!row.Step()) {
      TUTTI_RETURN_IF_ERROR(row.status());
      continue;  // forgotten meanwhile
    }
    auto* hit = response.add_hits();
    TUTTI_ASSIGN_OR_RETURN(*hit->mutable_memory(), FromRow(row));
    hit->set_score(candidate.parts.score);
    hit->set_relevance(candidate.parts.relevance);
    hit->set_recency(candidate.parts.recency);
    hit->set_importance(candidate.parts.importance);
    hit->set_text_relevance(candidate.parts.text);
    hit->set_vector_relevance(candidate.parts.vector);
  }
  return absl::OkStatus();
}

}  // namespace tutti::state_manager

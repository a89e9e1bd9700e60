// The audit log, on every engine: whatever is done to it is found and named.
#include <thread>

#include "services/state-manager/store/testing/store_fixture.h"

namespace tutti::state_manager::testing {
namespace {

class AuditTest : public StoreFixture {
 protected:
  void Note(const std::string& actor, const std::string& action = "runs.cancel") {
    v1::AppendAuditRecordRequest request;
    request.mutable_record()->set_actor(actor);
    request.mutable_record()->set_action(action);
    request.mutable_record()->set_resource("runs/1");
    request.mutable_record()->set_outcome("ok");
    (*request.mutable_record()->mutable_details()->mutable_fields())["why"].set_string_value("because \"of\" ü");
    ASSERT_THAT(Write(store_->audit, &AuditLog::AppendAuditRecord, request), IsOk());
  }
  v1::VerifyAuditLogResponse Verify(const v1::VerifyAuditLogRequest& request = {}) {
    auto answer = Read(store_->audit, &AuditLog::VerifyAuditLog, request);
    EXPECT_THAT(answer, IsOk());
    return answer.value_or(v1::VerifyAuditLogResponse());
  }
  void SetUp() override {
    StoreFixture::SetUp();
    if (IsSkipped()) return;
    for (int i = 1; i <= 8; ++i) Note(absl::StrCat("users/", i));
  }
};
TUTTI_ON_ALL_ENGINES(AuditTest);

TEST_P(AuditTest, AWholeLogVerifies) {
  auto answer = Verify();
  EXPECT_EQ(answer.records(), 8);
  EXPECT_EQ(answer.findings_size(), 0) << answer.ShortDebugString();
  EXPECT_EQ(answer.head_hash().size(), 64u);
  v1::ListAuditRecordsRequest list;
  list.set_actor("users/3");
  auto records = Read(store_->audit, &AuditLog::ListAuditRecords, list);
  ASSERT_EQ(records->records_size(), 1);
  EXPECT_EQ(records->records(0).details().fields().at("why").string_value(), "because \"of\" ü");
}

TEST_P(AuditTest, AnAlteredRecordIsNamed) {
  ASSERT_THAT(Sql("UPDATE audit_log SET actor = 'users/evil' WHERE seq = 4"), IsOk());
  auto answer = Verify();
  ASSERT_EQ(answer.findings_size(), 1);
  EXPECT_EQ(answer.findings(0).seq(), 4);
}

// Whoever can write to the table can also hash: then it is the next record that no longer fits.
TEST_P(AuditTest, AnAlteredRecordWithItsHashIsNamed) {
  ASSERT_THAT(
      Transact<int>([](Transaction& tx, int&) {
        std::string hash;
        {
          Statement rows = tx.Prepare(
              "SELECT a.time, a.action, a.resource, a.outcome, a.details, b.hash FROM audit_log AS a JOIN "
              "audit_log AS b ON b.seq = a.seq - 1 WHERE a.seq = 4");
          if (!rows.Step()) return rows.status();
          v1::AuditRecord forged;
          forged.set_seq(4);
          forged.set_actor("users/evil");
          forged.set_action(rows.Text(1));
          forged.set_resource(rows.Text(2));
          forged.set_outcome(rows.Text(3));
          hash = AuditHash(rows.Bytes(5), forged, rows.Int(0), rows.Text(4));
        }
        return tx.Prepare("UPDATE audit_log SET actor = 'users/evil', hash = $1 WHERE seq = 4").BindBytes(hash).Run();
      }),
      IsOk());
  auto answer = Verify();
  ASSERT_EQ(answer.findings_size(), 1) << answer.ShortDebugString();
  EXPECT_EQ(answer.findings(0).seq(), 5);
  EXPECT_THAT(answer.findings(0).problem(), ::testing::HasSubstr("or record 4 was, together with its hash"));
}

TEST_P(AuditTest, ARemovedRecordIsNamedAlsoAtTheEnd) {
  ASSERT_THAT(Sql("DELETE FROM audit_log WHERE seq IN (3, 4)"), IsOk());
  auto answer = Verify();
  ASSERT_EQ(answer.findings_size(), 1);
  EXPECT_EQ(answer.findings(0).problem(), "records 3 to 4 are missing");
  ASSERT_THAT(Sql("DELETE FROM audit_log WHERE seq = 8"), IsOk());
  answer = Verify();
  ASSERT_EQ(answer.findings_size(), 2);
  EXPECT_EQ(answer.findings(1).seq(), 8);
}

TEST_P(AuditTest, ReorderedRecordsAreNamed) {
  for (const char* sql : {"UPDATE audit_log SET seq = 100 WHERE seq = 2", "UPDATE audit_log SET seq = 2 WHERE seq = 6",
                          "UPDATE audit_log SET seq = 6 WHERE seq = 100"}) {
    ASSERT_THAT(Sql(sql), IsOk());
  }
  std::set<int64_t> named;
  auto answer = Verify();
  for (const auto& finding : answer.findings()) named.insert(finding.seq());
  EXPECT_TRUE(named.contains(2) && named.contains(6));
}

TEST_P(AuditTest, ALogWrittenAnewIsToldByAHashThatWasNoted) {
  v1::VerifyAuditLogRequest noted;
  noted.set_known_hash(Verify().head_hash());
  noted.set_known_seq(8);
  EXPECT_EQ(Verify(noted).findings_size(), 0);
  ASSERT_THAT(Sql("DELETE FROM audit_log"), IsOk());
  ASSERT_THAT(Sql("DELETE FROM audit_head"), IsOk());
  ASSERT_THAT(Sql(GetParam() == Engine::kPostgres ? "INSERT INTO audit_head VALUES (1, 0, '\\x')"
                                                  : "INSERT INTO audit_head VALUES (1, 0, x'')"),
              IsOk());
  for (int i = 1; i <= 9; ++i) Note("users/forged");
  EXPECT_EQ(Verify().findings_size(), 0) << "by itself it is whole";
  auto answer = Verify(noted);
  ASSERT_EQ(answer.findings_size(), 1);
  EXPECT_EQ(answer.findings(0).seq(), 8);
}

TEST_P(AuditTest, ManyWritersMakeOneChain) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < 25; ++i) Note(absl::StrCat("users/t", t));
    });
  }
  for (auto& thread : threads) thread.join();
  auto answer = Verify();
  EXPECT_EQ(answer.records(), 108);
  EXPECT_EQ(answer.findings_size(), 0) << answer.ShortDebugString();
}

}  // namespace
}  // namespace tutti::state_manager::testing

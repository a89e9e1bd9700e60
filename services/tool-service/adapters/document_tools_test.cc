#include "services/tool-service/adapters/document_tools.h"

#include <gtest/gtest.h>
#include <unistd.h>
#include <zip.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "runtime/status/testing/matchers.h"
#include "services/tool-service/adapters/readers.h"
#include "services/tool-service/domain/calculator.h"
#include "services/tool-service/domain/catalogue.h"

namespace tutti::tool_service {
namespace {

namespace fs = std::filesystem;
using tutti::testing::HasCode;
using tutti::testing::HasCodeAndText;
using tutti::testing::IsOk;

class DocumentToolsTest : public ::testing::Test {
 protected:
  DocumentToolsTest() : root_(absl::StrCat(::testing::TempDir(), "/tutti_docs_", getpid())), folder_(root_ + "/docs") {
    fs::create_directories(folder_ + "/sub");
    library_ = std::make_unique<DocumentLibrary>(DocumentLibrary::Options{.roots = {root_}});
    for (auto& tool : NewDocumentTools(*library_)) catalogue_.Add(std::move(tool));
  }
  ~DocumentToolsTest() override { fs::remove_all(root_); }
  void Write(const std::string& name, const std::string& bytes) {
    std::ofstream(folder_ + "/" + name, std::ios::binary) << bytes;
  }
  void WriteDocx(const std::string& name, const std::string& text) {
    int code = 0;
    zip_t* archive = zip_open((folder_ + "/" + name).c_str(), ZIP_CREATE | ZIP_TRUNCATE, &code);
    std::string xml =
        "<?xml version=\"1.0\"?><w:document "
        "xmlns:w=\"http://schemas.openxmlformats.org/wordprocessingml/2006/main\"><w:body><w:p><w:r><w:t>" +
        text + "</w:t></w:r></w:p></w:body></w:document>";
    zip_file_add(archive, "word/document.xml", zip_source_buffer(archive, xml.data(), xml.size(), 0), ZIP_FL_ENC_UTF_8);
    zip_close(archive);
  }
  absl::StatusOr<Json> Call(const std::string& tool, Json parameters) { return catalogue_.Call(tool, parameters, {}); }

  const std::string root_, folder_;
  std::unique_ptr<DocumentLibrary> library_;
  Catalogue catalogue_;
};

TEST_F(DocumentToolsTest, ReadsEveryFormatAndSkipsWhatItCannot) {
  Write("plain.txt", "Tides follow the moon. They rise twice a day.");
  Write("latin.txt",
        "Die Flut f\xe4llt sp\xe4ter am Abend zur\xfc"
        "ck und steigt wieder \xfc"
        "ber Nacht. Gr\xfc\xdf"
        "e aus K\xf6ln.");
  Write("sub/page.html",
        "<html><head><title>x</title><script>var no;</script></head><body><h1>Heading</h1><p>Spring tides are "
        "highest.</p></body></html>");
  Write("notes.md", "# Notes\n\nNeap tides are lowest.");
  WriteDocx("letter.docx", "The harbour silts up &amp; dredging helps.");
  Write("damaged.pdf", "%PDF-1.4 this is cut off");
  Write("damaged.docx", "PK no zip");
  Write("empty.txt", "");
  Write("blank.txt", "   \n \n");
  Write("picture.png", "not a document");
  Write(".hidden.txt", "secret");
  auto list = Call("documents_list", {{"folder", folder_}});
  ASSERT_THAT(list, IsOk());
  std::map<std::string, std::string> skipped;
  for (const auto& file : (*list)["skipped"]) skipped[file["name"]] = file["reason"];
  EXPECT_EQ((*list)["documents"].size(), 5u) << list->dump(2);
  EXPECT_EQ(skipped.size(), 4u);
  EXPECT_EQ(skipped["empty.txt"], "empty");
  EXPECT_EQ(skipped["blank.txt"], "has no text");
  EXPECT_NE(skipped["damaged.pdf"].find("damaged"), std::string::npos);
  EXPECT_NE(skipped["damaged.docx"].find("damaged"), std::string::npos);

  auto page = Call("documents_read", {{"folder", folder_}, {"document", "latin.txt"}});
  ASSERT_THAT(page, IsOk());
  EXPECT_NE((*page)["pages"][0]["text"].get<std::string>().find("fällt später"), std::string::npos) << page->dump();
  page = Call("documents_read", {{"folder", folder_}, {"document", "sub/page.html"}});
  EXPECT_EQ((*page)["pages"][0]["text"], "Heading. Spring tides are highest.");
  page = Call("documents_read", {{"folder", folder_}, {"document", "letter.docx"}});
  EXPECT_EQ((*page)["pages"][0]["text"], "The harbour silts up & dredging helps.");
}

TEST_F(DocumentToolsTest, SearchRanksThePassageThatIsAboutTheQuery) {
  Write("a.txt", "Bread needs flour. Bread needs water.");
  Write("b.txt", "The moon pulls the sea and makes the tides. Tides are strongest at full moon.");
  auto found = Call("documents_search", {{"folder", folder_}, {"query", "moon and tides"}});
  ASSERT_THAT(found, IsOk());
  ASSERT_FALSE((*found)["passages"].empty());
  EXPECT_EQ((*found)["passages"][0]["document"], "b.txt");
  EXPECT_EQ((*found)["passages"][0]["page"], 1);
  Write("c.txt", "Tides tides tides: the moon, the moon, tides and moon.");  // a changed folder is read again
  EXPECT_EQ((*Call("documents_search", {{"folder", folder_}, {"query", "moon and tides"}}))["documents"], 3);
}

TEST_F(DocumentToolsTest, VerifiesQuotationsAgainstTheirPage) {
  Write("b.txt", "The moon pulls the “sea” and makes\nthe tides. Another sentence.");
  auto verify = [&](Json citations) {
    return *Call("citations_verify", {{"folder", folder_}, {"citations", std::move(citations)}});
  };
  Json good = {{"document", "b.txt"}, {"page", 1}, {"quote", "the moon pulls the \"sea\" and makes the tides."}};
  EXPECT_EQ(verify({good})["passed"], true);
  Json invented = {{"document", "b.txt"}, {"page", 1}, {"quote", "The moon is made of cheese and butter."}};
  Json wrong_page = good, wrong_document = good;
  wrong_page["page"] = 7;
  wrong_document["document"] = "zzz.txt";
  for (const Json& bad : {invented, wrong_page, wrong_document}) {
    Json verdict = verify({good, bad});
    EXPECT_EQ(verdict["passed"], false) << bad;
    EXPECT_EQ(verdict["score"], 0.5);
    EXPECT_FALSE(verdict["feedback"].get<std::string>().empty());
  }
  EXPECT_EQ(verify(Json::array())["passed"], false) << "no citation is no evidence";
}

TEST_F(DocumentToolsTest, ReadsNothingOutsideItsRoots) {
  EXPECT_THAT(Call("documents_list", {{"folder", "/etc"}}),
              HasCodeAndText(absl::StatusCode::kPermissionDenied, "--tool-service.document-roots"));
  EXPECT_THAT(Call("documents_list", {{"folder", folder_ + "/../../../../etc"}}),
              HasCode(absl::StatusCode::kPermissionDenied));
  EXPECT_THAT(Call("documents_list", {{"folder", root_ + "_sibling"}}), HasCode(absl::StatusCode::kPermissionDenied));
  std::string outside = absl::StrCat(::testing::TempDir(), "/tutti_outside_", getpid(), ".txt");
  std::ofstream(outside) << "A secret of another folder.";
  fs::create_symlink(outside, folder_ + "/link.txt");
  Write("own.txt", "An own document.");
  EXPECT_EQ((*Call("documents_list", {{"folder", folder_}}))["documents"].size(), 1u)
      << "a link that leads out is not followed";
  fs::remove(outside);
}

TEST_F(DocumentToolsTest, SaysWhatIsWrongWithAFolder) {
  EXPECT_THAT(Call("documents_list", {{"folder", root_ + "/none"}}), HasCode(absl::StatusCode::kNotFound));
  EXPECT_THAT(Call("documents_list", {{"folder", folder_}}),
              HasCodeAndText(absl::StatusCode::kFailedPrecondition, "holds no readable document"));
  Write("damaged.pdf", "no pdf");
  EXPECT_THAT(Call("documents_list", {{"folder", folder_}}),
              HasCodeAndText(absl::StatusCode::kFailedPrecondition, "damaged.pdf (damaged"));
}

TEST_F(DocumentToolsTest, ParametersAreCheckedAgainstTheSchema) {
  EXPECT_THAT(Call("documents_search", {{"folder", folder_}}),
              HasCodeAndText(absl::StatusCode::kInvalidArgument, "query"));
  EXPECT_THAT(Call("documents_search", {{"folder", 5}, {"query", "x"}}),
              HasCodeAndText(absl::StatusCode::kInvalidArgument, "parameters.folder"));
  EXPECT_THAT(Call("documents_search", {{"folder", folder_}, {"query", "x"}, {"limit", 1000}}),
              HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Call("document_search", {}),
              HasCodeAndText(absl::StatusCode::kNotFound, "did you mean \"documents_search\"?"));
}

TEST(CalculatorTest, IsExact) {
  for (const auto& [expression, value] :
       std::vector<std::pair<std::string, std::string>>{{"0.1 + 0.2", "0.3"},
                                                        {"1/8", "0.125"},
                                                        {"2^100", "1267650600228229401496703205376"},
                                                        {"-2^2", "-4"},
                                                        {"(-2)^2", "4"},
                                                        {"2^-2", "0.25"},
                                                        {"1e3 * 2.5e-3", "2.5"},
                                                        {"10 - 3 - 2", "5"},
                                                        {"2^3^2", "512"},
                                                        {"100 / 4 / 5", "5"},
                                                        {"-0.0", "0"},
                                                        {"010", "10"},
                                                        {"1.10 * 3", "3.3"},
                                                        {"1e3-1", "999"},
                                                        {"2e3+1", "2001"}}) {
    auto result = Calculate(expression, 28);
    ASSERT_THAT(result, IsOk()) << expression;
    EXPECT_EQ(result->decimal, value) << expression;
    EXPECT_TRUE(result->exact) << expression;
  }
  EXPECT_EQ(Calculate("1/3", 5)->decimal, "0.33333");
  EXPECT_FALSE(Calculate("1/3", 5)->exact);
  EXPECT_EQ(Calculate("2.5", 0)->decimal, "2") << "half to even";
  EXPECT_EQ(Calculate("3.5", 0)->decimal, "4");
  EXPECT_EQ(Calculate("1/3", 5)->fraction, "1/3");
}

TEST(CalculatorTest, ErrorsNameTheColumn) {
  for (const auto& [expression, text] :
       std::vector<std::pair<std::string, std::string>>{{"1 +", "ends too early"},
                                                        {"1 / (2 - 2)", "division by zero"},
                                                        {"(1", "not closed"},
                                                        {"1 2", "column 3"},
                                                        {"2^0.5", "whole number"},
                                                        {"9^9^9", "exponent"},
                                                        {"2 $ 3", "unexpected"},
                                                        {"2 × 3", "unexpected \"×\""},
                                                        {"1e-2147483648", "bad exponent"},
                                                        {std::string(200, '(') + "1", "nested too deeply"}}) {
    EXPECT_THAT(Calculate(expression, 28), HasCodeAndText(absl::StatusCode::kInvalidArgument, text)) << expression;
  }
}

}  // namespace
}  // namespace tutti::tool_service

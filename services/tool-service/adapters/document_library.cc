#include "services/tool-service/adapters/document_library.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/text/utf8.h"
#include "services/tool-service/adapters/readers.h"

namespace tutti::tool_service {
namespace fs = std::filesystem;
namespace {

bool IsBelow(const fs::path& path, const fs::path& root) {
  auto [end, unused] = std::mismatch(root.begin(), root.end(), path.begin(), path.end());
  return end == root.end();
}

}  // namespace

const Document* Corpus::Find(const std::string& name) const {
  for (const auto& document : documents) {
    if (document.name == name) return &document;
  }
  return nullptr;
}

DocumentLibrary::DocumentLibrary(Options options) : options_(std::move(options)), readers_(AllReaders()) {
  for (auto& root : options_.roots) {
    std::error_code error;
    fs::path canonical = fs::weakly_canonical(root, error);
    if (!error) root = canonical.string();
    if (root.size() > 1 && root.back() == '/') root.pop_back();
  }
}

absl::StatusOr<std::string> DocumentLibrary::Allowed(const std::string& folder) const {
  std::error_code error;
  fs::path path = fs::weakly_canonical(folder, error);
  if (folder.empty() || error) {
    return Error(absl::StatusCode::kInvalidArgument, "BAD_FOLDER", absl::StrCat("folder \"", folder, "\" is no path"));
  }
  bool allowed = std::any_of(options_.roots.begin(), options_.roots.end(),
                             [&](const std::string& root) { return IsBelow(path, root); });
  if (!allowed) {
    return Error(absl::StatusCode::kPermissionDenied, "OUTSIDE_ROOTS",
                 absl::StrCat("folder ", path.string(), " is outside the folders that documents may be read from (",
                              absl::StrJoin(options_.roots, ", "), "); allow it with --tool-service.document-roots"))
        .Metadata("folder", path.string());
  }
  if (!fs::is_directory(path, error)) {
    return Error(absl::StatusCode::kNotFound, "FOLDER_NOT_FOUND",
                 absl::StrCat("folder ", path.string(), " does not exist"))
        .Metadata("folder", path.string());
  }
  return path.string();
}

absl::StatusOr<std::vector<DocumentLibrary::FileStamp>> DocumentLibrary::ListFiles(const std::string& folder) const {
  std::vector<FileStamp> files;
  std::error_code error;
  auto it = fs::recursive_directory_iterator(folder, fs::directory_options::skip_permission_denied, error);
  if (error) {
    return Error(absl::StatusCode::kPermissionDenied, "FOLDER_NOT_READABLE",
                 absl::StrCat("folder ", folder, " cannot be read: ", error.message()));
  }
  for (; it != fs::recursive_directory_iterator(); it.increment(error)) {
    if (error) break;
    std::string name = it->path().filename().string();
    if (absl::StartsWith(name, ".") || absl::StartsWith(name, "_")) {  // hidden, or a site generator's own
      if (it->is_directory(error)) it.disable_recursion_pending();
      continue;
    }
    if (!it->is_regular_file(error)) continue;
    std::string extension = absl::AsciiStrToLower(it->path().extension().string());
    if (std::none_of(readers_.begin(), readers_.end(), [&](const auto& reader) { return reader->Reads(extension); }))
      continue;
    // A link may lead out of the roots.
    fs::path real = fs::weakly_canonical(it->path(), error);
    if (error || std::none_of(options_.roots.begin(), options_.roots.end(),
                              [&](const std::string& root) { return IsBelow(real, root); })) {
      continue;
    }
    FileStamp stamp;
    stamp.path = real.string();
    stamp.name = fs::relative(it->path(), folder, error).generic_string();
    if (!IsValidUtf8(stamp.name)) continue;  // a name that no answer could carry
    stamp.size = static_cast<int64_t>(it->file_size(error));
    stamp.modified = it->last_write_time(error).time_since_epoch().count();
    files.push_back(std::move(stamp));
    if (static_cast<int>(files.size()) > options_.max_documents) {
      return Error(absl::StatusCode::kResourceExhausted, "TOO_MANY_DOCUMENTS",
                   absl::StrCat("folder ", folder, " holds more than ", options_.max_documents,
                                " documents; the limit is --tool-service.max-documents"));
    }
  }
  std::sort(files.begin(), files.end(), [](const FileStamp& a, const FileStamp& b) { return a.name < b.name; });
  return files;
}

absl::StatusOr<std::shared_ptr<const Corpus>> DocumentLibrary::Read(const std::string& folder,
                                                                    const std::vector<FileStamp>& files,
                                                                    const ToolCallInfo& info) const {
  auto corpus = std::make_shared<Corpus>();
  corpus->folder = folder;
  for (const auto& file : files) {
    if (info.given_up(absl::Now())) return absl::CancelledError("the call was given up while documents were read");
    if (file.size == 0) {
      corpus->skipped.push_back({file.name, "empty"});
      continue;
    }
    if (file.size > options_.max_document_bytes) {
      corpus->skipped.push_back({file.name, absl::StrCat("larger than ", options_.max_document_bytes, " bytes")});
      continue;
    }
    std::string extension = absl::AsciiStrToLower(fs::path(file.path).extension().string());
    auto reader = std::find_if(readers_.begin(), readers_.end(), [&](const auto& r) { return r->Reads(extension); });
    auto pages = (*reader)->Read(file.path);
    if (!pages.ok()) {
      corpus->skipped.push_back({file.name, std::string(pages.status().message())});
    } else if (std::all_of(pages->begin(), pages->end(), [](const std::string& page) { return page.empty(); })) {
      corpus->skipped.push_back({file.name, "has no text"});
    } else {
      corpus->documents.push_back({file.name, *std::move(pages)});
    }
  }
  if (corpus->documents.empty()) {
    std::string reasons;
    for (size_t i = 0; i < corpus->skipped.size() && i < 5; ++i) {
      absl::StrAppend(&reasons, i ? "; " : ": ", corpus->skipped[i].name, " (", corpus->skipped[i].reason, ")");
    }
    return Error(absl::StatusCode::kFailedPrecondition, "NO_DOCUMENTS",
                 absl::StrCat("folder ", folder, " holds no readable document (PDF, DOCX, HTML, Markdown or text)",
                              reasons))
        .Metadata("folder", folder);
  }
  corpus->index = std::make_unique<SearchIndex>(corpus->documents);
  return corpus;
}

absl::StatusOr<std::shared_ptr<const Corpus>> DocumentLibrary::Open(const std::string& given,
                                                                    const ToolCallInfo& info) {
  TUTTI_ASSIGN_OR_RETURN(std::string folder, Allowed(given));
  TUTTI_ASSIGN_OR_RETURN(std::vector<FileStamp> files, ListFiles(folder));
  MutexLock lock(mutex_);
  for (auto it = kept_.begin(); it != kept_.end(); ++it) {
    if (it->folder != folder) continue;
    if (it->files == files) {
      kept_.splice(kept_.begin(), kept_, it);
      return kept_.front().corpus;
    }
    kept_.erase(it);
    break;
  }
  TUTTI_ASSIGN_OR_RETURN(auto corpus, Read(folder, files, info));
  kept_.push_front({folder, std::move(files), corpus});
  if (kept_.size() > kMaxKept) kept_.pop_back();
  return corpus;
}

}  // namespace tutti::tool_service

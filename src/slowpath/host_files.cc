#include "slowpath/host_files.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>

#include "io/unique_fd.h"
#include "slowpath/cpu_list.h"

namespace braid {
namespace {

absl::Status NotUnderstood(const std::string& path, const std::string& text, const char* wanted) {
  return absl::DataLossError(path + " holds \"" + text.substr(0, 40) + "\", which is no " + wanted);
}

void TrimEnd(std::string& text) {
  while (!text.empty() && strchr(" \t\r\n", text.back()) != nullptr) text.pop_back();
}

}  // namespace

absl::StatusOr<std::string> HostFiles::Read(const std::string& path) const {
  const UniqueFd fd(open((root_ + path).c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) return absl::ErrnoToStatus(errno, path);
  std::string text;
  char buffer[4096];
  for (;;) {
    const ssize_t got = read(fd.get(), buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return absl::ErrnoToStatus(errno, path);
    if (got == 0) break;
    text.append(buffer, static_cast<size_t>(got));
    if (text.size() > kMaxHostFileBytes) return absl::DataLossError(path + " does not end");
  }
  TrimEnd(text);
  return text;
}

absl::StatusOr<int64_t> HostFiles::ReadInteger(const std::string& path) const {
  const auto text = Read(path);
  if (!text.ok()) return text.status();
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), number);
  if (error != std::errc() || end != text->data() + text->size()) {
    return NotUnderstood(path, *text, "number");
  }
  return number;
}

absl::StatusOr<std::string> HostFiles::ReadSelected(const std::string& path) const {
  const auto text = Read(path);
  if (!text.ok()) return text.status();
  const size_t begin = text->find('[');
  const size_t end = text->find(']');
  if (begin == text->npos || end == text->npos || end < begin) return *text;
  return text->substr(begin + 1, end - begin - 1);
}

absl::StatusOr<std::vector<int>> HostFiles::ReadCpuList(const std::string& path) const {
  const auto text = Read(path);
  if (!text.ok()) return text.status();
  auto cpus = ParseCpuList(*text);
  if (!cpus) return NotUnderstood(path, *text, "list of CPUs");
  return *std::move(cpus);
}

absl::StatusOr<std::vector<int>> HostFiles::ReadCpuMask(const std::string& path) const {
  const auto text = Read(path);
  if (!text.ok()) return text.status();
  auto cpus = ParseCpuMask(*text);
  if (!cpus) return NotUnderstood(path, *text, "mask of CPUs");
  return *std::move(cpus);
}

std::vector<std::string> HostFiles::List(const std::string& folder) const {
  std::vector<std::string> names;
  std::error_code error;
  std::filesystem::directory_iterator it(root_ + folder, error);
  for (; !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  std::sort(names.begin(), names.end(), [](const std::string& a, const std::string& b) {
    return strverscmp(a.c_str(), b.c_str()) < 0;
  });
  return names;
}

bool HostFiles::Exists(const std::string& path) const {
  return access((root_ + path).c_str(), F_OK) == 0;
}

std::optional<std::string> HostFiles::LinkName(const std::string& path) const {
  std::error_code error;
  const auto target = std::filesystem::read_symlink(root_ + path, error);
  if (error) return std::nullopt;
  return target.filename().string();
}

absl::Status HostFiles::Write(const std::string& path, const std::string& value) const {
  const UniqueFd fd(open((root_ + path).c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY | O_TRUNC));
  if (!fd) return absl::ErrnoToStatus(errno, path);
  const std::string line = value + "\n";
  const ssize_t written = write(fd.get(), line.data(), line.size());
  if (written == static_cast<ssize_t>(line.size())) return absl::OkStatus();
  // Not the rest in another one: the kernel would take that for a value of its own.
  return absl::ErrnoToStatus(written < 0 ? errno : ENOSPC, path);
}

bool MayHaveIpv6(const std::string& device) {
  return HostFiles().Read("/proc/sys/net/ipv6/conf/" + device + "/disable_ipv6").value_or("1") ==
         "0";
}

}  // namespace braid

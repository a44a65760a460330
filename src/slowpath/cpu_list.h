// Sets of CPUs as the kernel writes them: lists ("0-3,8") and masks of hexadecimal words
// ("ff,00000003").
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace braid {

inline constexpr int kMaxCpus = 8192;  // the largest number that a kernel can be built for

// Ascending, none twice. Nothing when the text is no such set or names a CPU beyond kMaxCpus; no
// text at all is the empty set.
std::optional<std::vector<int>> ParseCpuList(std::string_view text);
std::optional<std::vector<int>> ParseCpuMask(std::string_view text);

// Of ascending numbers. The empty set is "" as a list and "0" as a mask.
std::string FormatCpuList(const std::vector<int>& cpus);
std::string FormatCpuMask(const std::vector<int>& cpus);

}  // namespace braid

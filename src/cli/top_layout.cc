#include "cli/top_layout.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/drop_meaning.h"
#include "cli/text_layout.h"
#include "cli/units.h"

namespace braid {
namespace {

constexpr size_t kPeersAtFirst = 6;     // that are shown before anything else gets more room
constexpr size_t kWarningsAtFirst = 4;  // lines
constexpr size_t kHeadLines = 3;

// Lines.

size_t WidthOf(const TopLine& line) {
  size_t width = 0;
  for (const TopSpan& span : line) width += Width(span.text);
  return width;
}

TopLine FitLine(TopLine line, size_t width) {
  TopLine fitted;
  for (TopSpan& span : line) {
    if (width == 0) break;
    span.text = Fit(std::move(span.text), width);
    width -= Width(span.text);
    fitted.push_back(std::move(span));
  }
  return fitted;
}

TopLine Plain(std::string text) { return {{std::move(text)}}; }
TopLine Title(std::string text) { return {{std::move(text), Tint::kBold}}; }

// Numbers, without units where the column's title has them.

std::string Mbps(const std::optional<double>& mbps) {
  if (!mbps) return kNothing;
  return absl::StrFormat("%.*f", *mbps < 999.95 ? 1 : 0, *mbps);
}

std::string Ms(const std::optional<double>& ms) {
  if (!ms || *ms < 0) return kNothing;
  return absl::StrFormat("%.*f", *ms < 9.995 ? 2 : *ms < 999.95 ? 1 : 0, *ms);
}

std::string Percent(const std::optional<double>& share) {
  if (!share || *share < 0) return kNothing;
  if (*share == 0) return "0";
  return *share < 0.0005 ? "<0.1" : absl::StrFormat("%.1f", *share * 100);
}

std::string PerSecond(const std::optional<double>& per_s) {
  if (!per_s) return kNothing;
  if (*per_s > 0 && *per_s < 9.95) return absl::StrFormat("%.1f", *per_s);
  return ShowCount(std::round(*per_s));
}

// Bars, in eighths of a column.

constexpr std::array<const char*, 9> kAcross = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"};
constexpr std::array<const char*, 8> kUp = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};

std::string Bar(double share, size_t width) {
  const auto eighths = static_cast<size_t>(
      std::lround(std::clamp(share, 0.0, 1.0) * static_cast<double>(width) * 8));
  std::string bar;
  for (size_t i = 0; i < width; ++i) {
    const size_t left = eighths > i * 8 ? eighths - i * 8 : 0;
    bar += kAcross[std::min<size_t>(left, 8)];
  }
  return bar;
}

// The newest at the right. Nothing is drawn where nothing is known.
std::string Sparkline(const std::deque<TopRates>& history, std::optional<double> TopRates::*which,
                      double peak, size_t width) {
  std::string line;
  const size_t shown = std::min(width, history.size());
  for (size_t i = history.size() - shown; i < history.size(); ++i) {
    const std::optional<double>& value = history[i].*which;
    if (!value) {
      line += ' ';
    } else if (*value <= 0 || peak <= 0) {
      line += kUp[0];
    } else {
      const double step = std::ceil(*value / peak * kUp.size());
      line += kUp[static_cast<size_t>(std::clamp(step, 1.0, 8.0)) - 1];
    }
  }
  return line;
}

double PeakOf(const std::deque<TopRates>& history, std::optional<double> TopRates::*which,
              size_t width) {
  double peak = 0;
  const size_t shown = std::min(width, history.size());
  for (size_t i = history.size() - shown; i < history.size(); ++i) {
    peak = std::max(peak, (history[i].*which).value_or(0));
  }
  return peak;
}

// Tables.

struct Column {
  const char* title;
  size_t min;
  size_t max;
  bool right;
  int rank;  // what has the largest goes first where there is no room
};

struct Cell {
  std::string text;
  Tint tint = Tint::kPlain;
  std::optional<double> bar = std::nullopt;  // in the place of the text, over the column's width
};
using Cells = std::vector<Cell>;

constexpr size_t kIndent = 2;

// The width of each column; 0: it is left out.
std::vector<size_t> ChooseWidths(const std::vector<Column>& columns, size_t width) {
  std::vector<size_t> widths;
  size_t used = kIndent;
  for (const Column& column : columns) {
    widths.push_back(column.min);
    used += column.min + 1;
  }
  used -= 1;
  while (used > width) {
    size_t last = columns.size();
    for (size_t i = 0; i < columns.size(); ++i) {
      const bool is_later = last == columns.size() || columns[i].rank >= columns[last].rank;
      if (widths[i] != 0 && columns[i].rank > 0 && is_later) last = i;
    }
    if (last == columns.size()) break;
    used -= std::exchange(widths[last], 0) + 1;
  }
  for (size_t i = 0; i < columns.size() && used < width; ++i) {
    if (widths[i] == 0) continue;
    const size_t more = std::min(columns[i].max - columns[i].min, width - used);
    widths[i] += more;
    used += more;
  }
  return widths;
}

TopLine LayOutRow(const std::vector<Column>& columns, const std::vector<size_t>& widths,
                  const Cells& row, size_t width) {
  TopLine line = {{std::string(kIndent - 1, ' ')}};
  for (size_t i = 0; i < columns.size(); ++i) {
    if (widths[i] == 0) continue;
    line.push_back({" "});
    std::string text = row[i].bar ? Bar(*row[i].bar, widths[i]) : Fit(row[i].text, widths[i]);
    text = columns[i].right ? PadLeft(text, widths[i]) : PadRight(std::move(text), widths[i]);
    line.push_back({std::move(text), row[i].tint});
  }
  return FitLine(std::move(line), width);
}

std::vector<TopLine> LayOutTable(const std::vector<Column>& columns, const std::vector<Cells>& rows,
                                 size_t width) {
  const std::vector<size_t> widths = ChooseWidths(columns, width);
  Cells titles;
  for (const Column& column : columns) titles.push_back({column.title, Tint::kDim});
  std::vector<TopLine> lines = {LayOutRow(columns, widths, titles, width)};
  for (const Cells& row : rows) lines.push_back(LayOutRow(columns, widths, row, width));
  return lines;
}

// Sections: the lines that they would have, the title first.

struct Section {
  std::vector<TopLine> lines;
  size_t fixed = 0;    // so many lines at its top are its head
  size_t granted = 0;  // so many are shown

  size_t least() const { return std::min(lines.size(), fixed + 1); }
};

size_t ChosenPeer(const std::vector<TopPeer>& peers, const std::string& key) {
  const auto found = std::find_if(peers.begin(), peers.end(),
                                  [&](const TopPeer& peer) { return peer.key == key; });
  return found == peers.end() ? 0 : static_cast<size_t>(found - peers.begin());
}

Section PathSection(const TopPeer& peer, size_t width) {
  static const std::vector<Column> kColumns = {
      {"path", 8, 24, false, 0},    {"device", 8, 15, false, 6},     {"state", 7, 8, false, 2},
      {"in Mbit/s", 9, 9, true, 1}, {"out Mbit/s", 10, 10, true, 1}, {"rtt ms", 7, 7, true, 3},
      {"loss %", 6, 6, true, 4},    {"queue ms", 8, 8, true, 5},     {"share", 6, 40, false, 7}};
  std::vector<Cells> rows;
  for (const TopPath& path : peer.paths) {
    rows.push_back({{OrNothing(path.name)},
                    {OrNothing(path.interface)},
                    {OrNothing(path.state), TintOfState(path.state)},
                    {Mbps(path.rates.rx_mbps)},
                    {Mbps(path.rates.tx_mbps)},
                    {Ms(path.rtt_ms)},
                    {Percent(path.loss), path.loss.value_or(0) > 0 ? Tint::kFair : Tint::kPlain},
                    {Ms(path.queue_ms)},
                    {"", Tint::kGood, path.share}});
  }
  Section section{.lines = {Title("paths of " + OrNothing(peer.name))}, .fixed = 2};
  const std::vector<TopLine> table = LayOutTable(kColumns, rows, width);
  section.lines.push_back(table.front());
  for (size_t i = 0; i < peer.paths.size(); ++i) {
    section.lines.push_back(table[i + 1]);
    if (peer.paths[i].problem.empty()) continue;
    section.lines.push_back(
        {{std::string(2 * kIndent, ' ')}, {peer.paths[i].problem, Tint::kFair}});
  }
  return section;
}

Section PeerSection(const std::vector<TopPeer>& peers, size_t chosen, size_t width) {
  static const std::vector<Column> kColumns = {
      {"peer", 10, 32, false, 0},   {"state", 5, 5, false, 2},       {"paths", 5, 5, true, 5},
      {"in Mbit/s", 9, 9, true, 1}, {"out Mbit/s", 10, 10, true, 1}, {"received", 10, 10, true, 4},
      {"sent", 10, 10, true, 3}};
  std::vector<Cells> rows;
  size_t established = 0;
  for (const TopPeer& peer : peers) {
    established += peer.established ? 1 : 0;
    rows.push_back({{OrNothing(peer.name)},
                    {peer.established ? "up" : "down", peer.established ? Tint::kGood : Tint::kBad},
                    {ShowGrouped(peer.paths.size())},
                    {Mbps(peer.rates.rx_mbps)},
                    {Mbps(peer.rates.tx_mbps)},
                    {ShowBytes(peer.rx_bytes)},
                    {ShowBytes(peer.tx_bytes)}});
  }
  Section section{.lines = LayOutTable(kColumns, rows, width), .fixed = 2};
  if (chosen < peers.size() && peers.size() > 1) {
    TopLine& line = section.lines[chosen + 1];
    line.front().text.back() = '>';
    for (TopSpan& span : line) span.inverse = true;
  }
  section.lines.insert(section.lines.begin(),
                       Title(absl::StrCat("peers ", ShowGrouped(peers.size()), ", ",
                                          ShowGrouped(established), " up")));
  return section;
}

Section WorkerSection(const std::vector<TopWorker>& workers, size_t width) {
  if (workers.empty()) return {};
  static const std::vector<Column> kColumns = {{"worker", 6, 6, true, 0},
                                               {"cpu", 3, 3, true, 3},
                                               {"in packets/s", 12, 12, true, 1},
                                               {"out packets/s", 13, 13, true, 1},
                                               {"handed over/s", 13, 13, true, 2}};
  std::vector<Cells> rows;
  for (size_t i = 0; i < workers.size(); ++i) {
    rows.push_back({{std::to_string(i)},
                    {ShowCount(workers[i].cpu)},
                    {PerSecond(workers[i].rx_packets_per_s)},
                    {PerSecond(workers[i].tx_packets_per_s)},
                    {PerSecond(workers[i].handed_over_per_s)}});
  }
  Section section{.lines = LayOutTable(kColumns, rows, width), .fixed = 2};
  section.lines.insert(section.lines.begin(), Title("workers"));
  return section;
}

Section DropSection(const std::vector<TopDrop>& drops, size_t width) {
  if (drops.empty()) return {};
  static const std::vector<Column> kColumns = {{"reason", 22, 22, false, 0},
                                               {"a second", 9, 9, true, 1},
                                               {"in all", 13, 13, true, 3},
                                               {"", 20, 90, false, 2}};
  std::vector<Cells> rows;
  for (const TopDrop& drop : drops) {
    const Tint tint = drop.per_s > 0 ? Tint::kFair : Tint::kDim;
    rows.push_back({{drop.name, tint},
                    {PerSecond(drop.per_s), tint},
                    {ShowCount(drop.total)},
                    {DropMeaning(drop.name), Tint::kDim}});
  }
  Section section{.lines = LayOutTable(kColumns, rows, width), .fixed = 2};
  section.lines.insert(section.lines.begin(), Title("drops"));
  return section;
}

Section WarningSection(const std::vector<std::string>& warnings) {
  if (warnings.empty()) return {};
  Section section{.lines = {{{"warnings", Tint::kFair}}}, .fixed = 1};
  for (const std::string& warning : warnings) section.lines.push_back(Plain("  " + warning));
  return section;
}

// Grants lines until `room` is used up: first something to each, then more to those that matter.
void ShareOut(Section& paths, Section& peers, Section& workers, Section& drops, Section& warnings,
              size_t& room) {
  const auto grant = [&room](Section& section, size_t lines) {
    const size_t wanted = std::min(lines, section.lines.size());
    if (wanted <= section.granted) return;
    const size_t more = std::min(room, wanted - section.granted);
    // A head without anything below it says nothing.
    if (section.granted + more < section.least()) return;
    section.granted += more;
    room -= more;
  };
  grant(paths, paths.least());
  // A single peer's paths tell most of what there is to tell of it.
  if (peers.lines.size() == peers.fixed + 1) grant(paths, kTopUnlimited);
  for (Section* section : {&peers, &drops, &warnings}) grant(*section, section->least());
  grant(paths, kTopUnlimited);
  grant(peers, peers.fixed + kPeersAtFirst);
  grant(drops, kTopUnlimited);
  grant(warnings, warnings.fixed + kWarningsAtFirst);
  grant(workers, kTopUnlimited);
  grant(peers, kTopUnlimited);
  grant(warnings, kTopUnlimited);
}

void Append(std::vector<TopLine>& lines, const Section& section, size_t width) {
  for (size_t i = 0; i < section.granted; ++i) {
    const size_t left_out = section.lines.size() - section.granted;
    const bool is_cut =
        left_out > 0 && i + 1 == section.granted && section.granted > section.least();
    if (is_cut) {
      lines.push_back(FitLine({{absl::StrCat("  … ", left_out + 1, " more"), Tint::kDim}}, width));
    } else {
      lines.push_back(FitLine(section.lines[i], width));
    }
  }
}

// Those around the chosen one.
void AppendPeers(std::vector<TopLine>& lines, Section section, size_t chosen, size_t width) {
  const size_t rows = section.granted > section.fixed ? section.granted - section.fixed : 0;
  const size_t all = section.lines.size() - section.fixed;
  if (rows > 0 && rows < all) {
    const size_t first = std::min(chosen > rows / 2 ? chosen - rows / 2 : 0, all - rows);
    section.lines.front().push_back(
        {absl::StrCat(", ", ShowGrouped(first + 1), " to ", ShowGrouped(first + rows), " shown"),
         Tint::kDim});
    const auto rows_begin = section.lines.begin() + static_cast<std::ptrdiff_t>(section.fixed);
    section.lines.erase(rows_begin, rows_begin + static_cast<std::ptrdiff_t>(first));
    section.lines.resize(section.granted);
  }
  Append(lines, section, width);
}

// The head and the foot.

TopLine RateLine(const TopState& state, const char* name, std::optional<double> TopRates::*which,
                 size_t width) {
  const std::string rate = "  " + PadRight(name, 4) + PadLeft(ShowRate(state.rates.*which), 12);
  constexpr size_t kPeakColumns = 20;
  const size_t room = width > WidthOf(Plain(rate)) + 1 ? width - Width(rate) - 1 : 0;
  const bool has_peak = room > 2 * kPeakColumns;
  const size_t columns = has_peak ? room - kPeakColumns : room;
  const double peak = PeakOf(state.history, which, columns);
  TopLine line = {{rate, Tint::kBold},
                  {" "},
                  {PadLeft(Sparkline(state.history, which, peak, columns), columns), Tint::kGood}};
  if (has_peak) line.push_back({"  peak " + ShowRate(peak), Tint::kDim});
  return FitLine(std::move(line), width);
}

void AppendHead(std::vector<TopLine>& lines, const TopState& state, const TopView& view,
                size_t width) {
  TopLine first = {{"braid", Tint::kBold}, {" "}};
  if (state.problem.empty()) {
    first.push_back({OrNothing(state.state), TintOfState(state.state)});
    // As much of it as there is room for.
    size_t used = WidthOf(first);
    for (const std::string& part :
         {state.mode, state.device, state.uptime_s ? "up " + ShowDuration(state.uptime_s) : "",
          state.version.empty() ? "" : "version " + state.version}) {
      if (part.empty() || used + 2 + Width(part) > width) continue;
      used += 2 + Width(part);
      first.push_back({"  " + part});
    }
  } else {
    first.push_back({"no answer, trying again", Tint::kBad});
  }
  const std::string clock = view.paused ? "paused" : absl::StrFormat("every %g s", view.interval_s);
  const size_t used = WidthOf(first);
  if (used + 2 + Width(clock) <= width) {
    first.push_back({std::string(width - used - Width(clock), ' ')});
    first.push_back({clock, view.paused ? Tint::kFair : Tint::kDim});
  }
  lines.push_back(FitLine(std::move(first), width));
  lines.push_back(RateLine(state, "in", &TopRates::rx_mbps, width));
  lines.push_back(RateLine(state, "out", &TopRates::tx_mbps, width));
}

std::vector<TopLine> Help() {
  constexpr const char* kLines[] = {
      "q         quit",
      "p space   pause, and go on",
      "s         sort the peers by rate, by bytes, by name",
      "↑ ↓ j k   choose the peer whose paths are shown; also page up and down, home, end",
      "?         this, and back",
      "",
      "in, out   of a peer what the tunnel carries, of a path all that goes over its link",
      "queue ms  how long what is sent waits in front of the path's narrowest place",
      "share     of what the peer's paths carry",
      "drops     those that rose within the last half minute"};
  std::vector<TopLine> lines = {Title("keys, and what is shown")};
  for (const char* line : kLines) lines.push_back(Plain(std::string("  ") + line));
  return lines;
}

void AppendBody(std::vector<TopLine>& lines, const TopState& state, const TopView& view,
                size_t width, size_t room) {
  if (!state.problem.empty()) {
    lines.push_back({});
    lines.push_back(FitLine(Plain("  " + state.problem), width));
    return;
  }
  std::vector<TopPeer> sorted = state.peers;
  SortPeers(sorted, view.sort);
  const size_t chosen = ChosenPeer(sorted, view.peer);
  Section paths = sorted.empty() ? Section{} : PathSection(sorted[chosen], width);
  Section peers = PeerSection(sorted, chosen, width);
  Section workers = WorkerSection(state.workers, width);
  Section drops = DropSection(state.drops, width);
  Section warnings = WarningSection(state.warnings);
  if (sorted.empty()) peers.lines = {Title("no peers")};
  ShareOut(paths, peers, workers, drops, warnings, room);
  for (const Section* section : {&paths, &peers, &workers, &drops, &warnings}) {
    if (section->granted == 0) continue;
    if (room > 0) {
      lines.push_back({});
      --room;
    }
    section == &peers ? AppendPeers(lines, peers, chosen, width) : Append(lines, *section, width);
  }
}

}  // namespace

std::vector<TopLine> LayOutTop(const TopState& state, const TopView& view, size_t width,
                               size_t height) {
  std::vector<TopLine> lines;
  AppendHead(lines, state, view, width);
  const bool has_foot = height != kTopUnlimited && height > kHeadLines + 1;
  const size_t used = kHeadLines + (has_foot ? 1 : 0);
  const size_t room = height > used ? height - used : 0;
  if (view.help) {
    lines.push_back({});
    for (TopLine& line : Help()) lines.push_back(FitLine(std::move(line), width));
  } else {
    AppendBody(lines, state, view, width, room);
  }
  if (height == kTopUnlimited) return lines;
  lines.resize(std::min(lines.size(), has_foot ? height - 1 : height));
  if (!has_foot) return lines;
  lines.resize(height - 1);
  lines.push_back(FitLine(
      {{absl::StrCat("q quit  p pause  s sort: ", kTopSortNames[static_cast<size_t>(view.sort)],
                     "  ↑↓ choose  ? help"),
        Tint::kDim}},
      width));
  return lines;
}

std::string MovePeer(const TopState& state, const TopView& view, int steps) {
  std::vector<TopPeer> sorted = state.peers;
  if (sorted.empty()) return view.peer;
  SortPeers(sorted, view.sort);
  const auto last = static_cast<int64_t>(sorted.size()) - 1;
  const auto from = static_cast<int64_t>(ChosenPeer(sorted, view.peer));
  return sorted[static_cast<size_t>(std::clamp<int64_t>(from + steps, 0, last))].key;
}

std::string RenderLine(const TopLine& line, bool colour) {
  std::string text;
  for (const TopSpan& span : line) text += Tinted(colour, span.tint, span.text);
  if (!colour) text.erase(text.find_last_not_of(' ') + 1);
  return text;
}

}  // namespace braid

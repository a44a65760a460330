#include "cli/doctor_view.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "cli/text_layout.h"

namespace braid::doctor_view_test {
namespace {

using Verdict = Diagnosis::Verdict;

std::vector<Diagnosis> Some() {
  return {{"kernel", "tun", Verdict::kOk, "works"},
          {"kernel", "steering", Verdict::kWarn, "is slow", "do this"},
          {"paths", "a long name → hub", Verdict::kFail,
           "no answer from a server that is far away and has been asked three times now",
           "see to it that it runs, and that nothing on the way refuses what is sent there"},
          {"paths", "dns", Verdict::kUnknown, "is not to be seen"}};
}

TEST(DoctorView, IsReadAtAGlance) {
  EXPECT_EQ(RenderDiagnoses(Some(), false), R"(kernel
  ok    tun             works
  warn  steering        is slow
                        → do this

paths
  FAIL  a long name → hub
                        no answer from a server that is far away and has been
                        asked three times now
                        → see to it that it runs, and that nothing on the way
                          refuses what is sent there
  ?     dns             is not to be seen

1 failed, 1 warning; 1 could not be looked at
)");
  EXPECT_EQ(RenderDiagnoses({{"g", "n", Verdict::kOk, "f"}}, false),
            "g\n  ok    n               f\n\nnothing is wrong\n");
}

TEST(DoctorView, ColoursChangeNoWord) {
  const std::string coloured = RenderDiagnoses(Some(), true);
  std::string plain;
  for (size_t at = 0; at < coloured.size(); ++at) {
    if (coloured[at] == '\x1b') {
      at = coloured.find('m', at);
    } else {
      plain += coloured[at];
    }
  }
  EXPECT_NE(coloured, plain);
  EXPECT_EQ(plain, RenderDiagnoses(Some(), false));
}

TEST(DoctorView, NoTextFromElsewhereSteersTheTerminal) {
  const std::string text =
      RenderDiagnoses({{"g", "a\x1b[2J", Verdict::kFail, "b\n\x07", "c\x1b"}}, false);
  for (const char c : text) EXPECT_TRUE(c == '\n' || static_cast<unsigned char>(c) >= 0x20);
}

TEST(DoctorView, ProgramsGetAllOfIt) {
  const auto json = DescribeDiagnoses(Some());
  EXPECT_EQ(json["failed"], 1);
  ASSERT_EQ(json["checks"].size(), 4u);
  EXPECT_EQ(json["checks"][1]["status"], "warn");
  EXPECT_EQ(json["checks"][1]["advice"], "do this");
  EXPECT_EQ(json["checks"][0]["advice"], nullptr);
  EXPECT_EQ(json["checks"][3]["status"], "unknown");
  EXPECT_EQ(json["checks"][2]["group"], "paths");
}

}  // namespace
}  // namespace braid::doctor_view_test

#include "io/tun_steering.h"

#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <vector>

#include "base/flow_hash.h"

namespace braid {
namespace {

// Enough of an assembler: instructions are appended, forward jumps are patched when their target
// is known. LD_ABS and LD_IND want the context in R6, leave their result in R0, clobber R1 to R5,
// and end the program with 0 where the packet is too short.
class Assembler {
 public:
  void Move(int to, int from) { Emit(BPF_ALU64 | BPF_MOV | BPF_X, to, from, 0, 0); }
  void MoveImmediate(int to, int32_t value) { Emit(BPF_ALU64 | BPF_MOV | BPF_K, to, 0, 0, value); }
  void Alu(int operation, int to, int from) { Emit(BPF_ALU64 | operation | BPF_X, to, from, 0, 0); }
  void AluImmediate(int operation, int to, int32_t value) {
    Emit(BPF_ALU64 | operation | BPF_K, to, 0, 0, value);
  }
  void LoadImmediate64(int to, uint64_t value) {
    Emit(BPF_LD | BPF_DW | BPF_IMM, to, 0, 0, static_cast<int32_t>(value));
    Emit(0, 0, 0, 0, static_cast<int32_t>(value >> 32));
  }
  // R0 = packet[offset], of the given size, in host order.
  void LoadPacket(int size, int32_t offset) { Emit(BPF_LD | BPF_ABS | size, 0, 0, 0, offset); }
  void LoadPacketIndexed(int size, int index, int32_t offset) {
    Emit(BPF_LD | BPF_IND | size, 0, index, 0, offset);
  }
  void Spill(int slot, int from) { Emit(BPF_STX | BPF_MEM | BPF_DW, BPF_REG_10, from, slot, 0); }
  void Reload(int to, int slot) { Emit(BPF_LDX | BPF_MEM | BPF_DW, to, BPF_REG_10, slot, 0); }
  // Returns the jump, to be given to Land() at its target.
  size_t JumpIf(int condition, int left, int32_t right) {
    Emit(BPF_JMP | condition | BPF_K, left, 0, 0, right);
    return code_.size() - 1;
  }
  size_t Jump() {
    Emit(BPF_JMP | BPF_JA, 0, 0, 0, 0);
    return code_.size() - 1;
  }
  void Land(size_t jump) { code_[jump].off = static_cast<int16_t>(code_.size() - jump - 1); }
  void Exit() { Emit(BPF_JMP | BPF_EXIT, 0, 0, 0, 0); }

  const std::vector<bpf_insn>& code() const { return code_; }

 private:
  void Emit(int opcode, int destination, int source, int offset, int32_t immediate) {
    bpf_insn instruction{};
    instruction.code = static_cast<uint8_t>(opcode);
    instruction.dst_reg = static_cast<uint8_t>(destination) & 0xf;
    instruction.src_reg = static_cast<uint8_t>(source) & 0xf;
    instruction.off = static_cast<int16_t>(offset);
    instruction.imm = immediate;
    code_.push_back(instruction);
  }

  std::vector<bpf_insn> code_;
};

// Registers that survive packet loads.
constexpr int kContext = BPF_REG_6;
constexpr int kSource = BPF_REG_7;
constexpr int kDestination = BPF_REG_8;
constexpr int kSpare = BPF_REG_9;  // the protocol, then the offset of the ports
// Scratch between two loads.
constexpr int kMultiplier = BPF_REG_1;
constexpr int kTemporary = BPF_REG_2;
// Where on the stack the protocol waits.
constexpr int kProtocolSlot = -8;

constexpr int kLoadAttempts = 10;

void EmitMix(Assembler& code, int value) {
  code.LoadImmediate64(kMultiplier, kFlowHashMultiplier);
  code.Alu(BPF_MUL, value, kMultiplier);
  code.Move(kTemporary, value);
  code.AluImmediate(BPF_RSH, kTemporary, 32);
  code.Alu(BPF_XOR, value, kTemporary);
}

// value = mix(packet[offset, 8)) + packet[offset + 8, 8)
void EmitIpv6End(Assembler& code, int value, int32_t offset) {
  code.LoadPacket(BPF_W, offset);
  code.Move(value, BPF_REG_0);
  code.AluImmediate(BPF_LSH, value, 32);
  code.LoadPacket(BPF_W, offset + 4);
  code.Alu(BPF_OR, value, BPF_REG_0);
  EmitMix(code, value);
  // The second half is added in two steps, since no register is free to build it in.
  code.LoadPacket(BPF_W, offset + 8);
  code.AluImmediate(BPF_LSH, BPF_REG_0, 32);
  code.Alu(BPF_ADD, value, BPF_REG_0);
  code.LoadPacket(BPF_W, offset + 12);
  code.Alu(BPF_ADD, value, BPF_REG_0);
}

void EmitIpv4End(Assembler& code, int value, int32_t offset) {
  code.LoadPacket(BPF_W, offset);
  code.Move(value, BPF_REG_0);
  code.AluImmediate(BPF_LSH, value, 16);
}

std::vector<bpf_insn> AssembleLaneSteering(int lanes, int queues) {
  Assembler code;
  std::vector<size_t> to_sum;

  code.Move(kContext, BPF_REG_1);
  code.LoadPacket(BPF_B, 0);
  code.AluImmediate(BPF_RSH, BPF_REG_0, 4);
  const size_t if_ipv4 = code.JumpIf(BPF_JEQ, BPF_REG_0, 4);

  EmitIpv6End(code, kSource, 8);
  EmitIpv6End(code, kDestination, 24);
  code.LoadPacket(BPF_B, 6);
  code.Move(kSpare, BPF_REG_0);
  code.Spill(kProtocolSlot, kSpare);
  code.MoveImmediate(BPF_REG_0, 40);
  const size_t ipv6_done = code.Jump();

  code.Land(if_ipv4);
  EmitIpv4End(code, kSource, 12);
  EmitIpv4End(code, kDestination, 16);
  code.LoadPacket(BPF_B, 9);
  code.Move(kSpare, BPF_REG_0);
  code.Spill(kProtocolSlot, kSpare);
  code.LoadPacket(BPF_H, 6);
  code.AluImmediate(BPF_AND, BPF_REG_0, 0x3fff);
  to_sum.push_back(code.JumpIf(BPF_JNE, BPF_REG_0, 0));  // a fragment: no ports
  code.LoadPacket(BPF_B, 0);
  code.AluImmediate(BPF_AND, BPF_REG_0, 0xf);
  code.AluImmediate(BPF_LSH, BPF_REG_0, 2);

  code.Land(ipv6_done);  // R0: where the ports would be; kSpare: the protocol
  std::vector<size_t> to_ports;
  for (const int protocol : {6, 17, 132}) {
    to_ports.push_back(code.JumpIf(BPF_JEQ, kSpare, protocol));
  }
  to_sum.push_back(code.Jump());
  for (const size_t jump : to_ports) code.Land(jump);
  code.Move(kSpare, BPF_REG_0);
  code.LoadPacketIndexed(BPF_H, kSpare, 0);
  code.Alu(BPF_XOR, kSource, BPF_REG_0);
  code.LoadPacketIndexed(BPF_H, kSpare, 2);
  code.Alu(BPF_XOR, kDestination, BPF_REG_0);

  for (const size_t jump : to_sum) code.Land(jump);
  EmitMix(code, kSource);
  EmitMix(code, kDestination);
  code.Alu(BPF_ADD, kSource, kDestination);
  code.Reload(kSpare, kProtocolSlot);
  code.Alu(BPF_ADD, kSource, kSpare);
  EmitMix(code, kSource);
  code.Move(BPF_REG_0, kSource);
  code.AluImmediate(BPF_RSH, BPF_REG_0, 16);
  code.LoadImmediate64(kMultiplier, 0xffffffff);
  code.Alu(BPF_AND, BPF_REG_0, kMultiplier);
  code.AluImmediate(BPF_MOD, BPF_REG_0, lanes);
  code.AluImmediate(BPF_MOD, BPF_REG_0, queues);
  code.Exit();
  return code.code();
}

}  // namespace

absl::StatusOr<UniqueFd> LoadLaneSteering(int lanes, int queues) {
  const std::vector<bpf_insn> code = AssembleLaneSteering(lanes, queues);
  bpf_attr attributes{};
  attributes.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
  attributes.insns = reinterpret_cast<uint64_t>(code.data());
  attributes.insn_cnt = static_cast<uint32_t>(code.size());
  attributes.license = reinterpret_cast<uint64_t>("GPL");
  strncpy(attributes.prog_name, "braid_lanes", sizeof(attributes.prog_name) - 1);
  // A signal or an io_uring notification that arrives while the kernel verifies the program makes
  // it give up with EAGAIN.
  for (int attempt = 1;; ++attempt) {
    UniqueFd program(
        static_cast<int>(syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof(attributes))));
    if (program) return program;
    if (errno != EAGAIN || attempt == kLoadAttempts) {
      return absl::ErrnoToStatus(errno, "cannot load the lane steering program");
    }
  }
}

absl::Status AttachLaneSteering(int tun_fd, int program_fd) {
  if (ioctl(tun_fd, TUNSETSTEERINGEBPF, &program_fd) != 0) {
    return absl::ErrnoToStatus(errno, "cannot attach the lane steering program");
  }
  return absl::OkStatus();
}

}  // namespace braid
